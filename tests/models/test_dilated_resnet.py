import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.models import create

PLANE = CliffordAlgebra((1, 1))


def seen(network, size: int) -> int:
    """How many cells of the first axis reach the output at its middle."""
    x = torch.randn(1, 1, 4, size, size, requires_grad=True)
    network(x)[0, 0, 0, size // 2, size // 2].backward()
    return int((x.grad.abs().amax((0, 1, 2, 4)) > 0).sum())


def test_dilations_widen_what_an_output_sees():
    """A block with dilations d sees 1 + 2 Σ d cells, the convolutions at both ends two more each."""
    options = {"hidden_channels": 2, "blocks": (1,), "norm": "none"}
    for dilations in ((1,), (1, 4, 2)):
        network = create("dilated_resnet", PLANE, 1, 1, **options, dilations=dilations)
        assert seen(network, 32) == 1 + 2 * sum(dilations) + 4


def test_dilated_kernels_may_span_more_than_the_grid_but_no_tap_may_miss_it():
    network = create("dilated_resnet", PLANE, 1, 1, hidden_channels=2, blocks=(1,), dilations=(4,))
    assert network(torch.randn(1, 1, 4, 6, 6)).shape == (1, 1, 4, 6, 6)
    with pytest.raises(RuntimeError, match=r"the grid \(4, 4\) is smaller than the kernel, which spans 5 cells"):
        network(torch.zeros(1, 1, 4, 4, 4))


@pytest.mark.parametrize("dilations", [(), (0,), (1.5,)], ids=str)
def test_dilations_must_be_positive_whole_numbers(dilations):
    with pytest.raises(ValueError, match=r"`dilations` \(=.*\) must hold positive whole numbers"):
        create("dilated_resnet", PLANE, 1, 1, dilations=dilations)
