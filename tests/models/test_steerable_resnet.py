import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.models import create
from cliffsteer.nn import GroupConv, Padding
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

PLANE = CliffordAlgebra((1, 1))
SMALL = {"hidden_channels": 1, "blocks": (1,), "kernel_size": 3}
SIGNATURES = [(1,), (1, 1), (1, -1, -1), (1, 1, 1)]


def made(algebra, **options):
    """A network whose biases and norms do something, in float64."""
    network = create("steerable_resnet", algebra, 2, 1, **SMALL | options).double()
    for weight in network.parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight)
    return network


@pytest.mark.parametrize("padding", ["periodic", "zeros", "mirror"])
@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_is_equivariant(signature, padding):
    algebra = CliffordAlgebra(signature)
    x = torch.randn(1, 2, algebra.n_blades, *[4] * algebra.dim, dtype=torch.float64)
    assert_equivariant(made(algebra, padding=padding), x, algebra, tolerance=1e-12)


def test_keeps_the_symmetries_that_a_grid_with_walls_has():
    grid = Grid((6, 6), 1.0, (("slip", "open"), "periodic"))
    x = torch.randn(1, 2, 4, 6, 6, dtype=torch.float64)
    network = made(PLANE, padding=grid)
    assert_equivariant(network, x, PLANE, grid=grid, tolerance=1e-12)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(network, x, PLANE, group=lattice_symmetries(PLANE), tolerance=1e-3)


def test_has_the_frame_of_the_resnet():
    """Each kernel of n channels on 8 elements stands for one of 8 n real channels, with an eighth of the weights."""
    options = {"blocks": (2, 1), "kernel_size": 5}
    plain = create("resnet", PLANE, 2, 1, hidden_channels=24, **options)
    network = create("steerable_resnet", PLANE, 2, 1, hidden_channels=3, **options)
    kernels = [p.numel() for p in plain.blocks.parameters() if p.ndim == 4]
    assert [8 * p.numel() for p in network.blocks.parameters() if p.ndim == 5] == kernels
    assert [m.kernel().shape for m in network.blocks.modules() if isinstance(m, GroupConv)] == [(24, 24, 5, 5)] * 6


def test_every_padding_of_its_layers_is_known_to_the_diagnostics():
    network = create("steerable_resnet", PLANE, 2, 1, **SMALL, padding="periodic")
    assert {m.modes for m in network.blocks.modules() if isinstance(m, Padding)} == {(("periodic", "periodic"),) * 2}


def test_exports_for_any_batch():
    network = create("steerable_resnet", PLANE, 2, 1, **SMALL, padding="mirror").eval()
    x = torch.randn(2, 2, 4, 6, 6)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (x, torch.randn(3, 2, 4, 6, 6)):
        assert torch.allclose(program(batch), network(batch), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "D4"}, r"`group` \(='D4'\) must be one of"),
        ({"norm": "batch"}, r"`norm` \(='batch'\) must be 'layer' or 'none'"),
        ({"kernel_size": 4}, r"`kernel_size` \(=4\) must be odd"),
        ({"blocks": 1}, r"`blocks` \(=1\) must hold a positive whole number"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        create("steerable_resnet", PLANE, 1, 1, **options)
