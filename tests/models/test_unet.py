import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.models import create

SMALL = {"hidden_channels": 2, "blocks": (1, 2, 1)}


@pytest.mark.parametrize("signature", [(1,), (1, -1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("padding", ["zeros", "periodic", "symmetric"])
def test_works_on_any_grid_that_can_be_halved(signature, padding):
    algebra = CliffordAlgebra(signature)
    network = create("unet", algebra, 2, 1, **SMALL, padding=padding)
    grid = [16, 12, 12][: algebra.dim]
    y = network(torch.randn(2, 2, algebra.n_blades, *grid))
    assert y.shape == (2, 1, algebra.n_blades, *grid)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_refuses_other_grids():
    with pytest.raises(RuntimeError, match=r"the grid \(8, 10\) must have multiples of 4 cells on every axis"):
        create("unet", CliffordAlgebra((1, 1)), 1, 1, **SMALL)(torch.zeros(1, 1, 4, 8, 10))


def test_shifts_by_the_coarsest_cell_commute_with_it():
    network = create("unet", CliffordAlgebra((1, 1)), 1, 1, **SMALL, padding="periodic").double()
    x = torch.randn(1, 1, 4, 16, 16, dtype=torch.float64)
    assert torch.allclose(network(x.roll(4, 3)), network(x).roll(4, 3), atol=1e-12)
    assert not torch.allclose(network(x.roll(1, 3)), network(x).roll(1, 3), atol=1e-3)


def test_growth_must_not_shrink():
    with pytest.raises(ValueError, match=r"`growth` \(=0.5\) must be at least 1"):
        create("unet", CliffordAlgebra((1, 1)), 1, 1, growth=0.5)
