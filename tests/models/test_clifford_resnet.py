import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.models import CliffordResNet, create
from cliffsteer.models.clifford_resnet import CliffordConv

SIGNATURES = [(1,), (1, 1), (-1, 1), (1, -1, -1)]


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_convolution_is_a_sum_of_geometric_products(signature):
    algebra = CliffordAlgebra(signature)
    conv = CliffordConv(algebra, 2, 3, 3, padding="periodic").double()
    x = torch.randn(1, 2, algebra.n_blades, *[4] * algebra.dim, dtype=torch.float64)
    expected = conv.bias.view(1, 3, algebra.n_blades, *[1] * algebra.dim).expand(1, -1, -1, *x.shape[3:])
    axes = list(range(3, x.ndim))
    for tap in torch.cartesian_prod(*[torch.arange(3)] * algebra.dim).view(-1, algebra.dim):
        weight = conv.weight[(..., *tap)].view(3, 2, algebra.n_blades, *[1] * algebra.dim)
        moved = x.roll([1 - int(t) for t in tap], axes)
        product = algebra.geometric_product(weight.unsqueeze(0), moved.unsqueeze(1), axis=3)
        expected = expected + product.sum(2)
    assert torch.allclose(conv(x.flatten(1, 2)).view(expected.shape), expected, atol=1e-12)


def test_weights_are_a_multivector_for_each_tap():
    algebra = CliffordAlgebra((1, 1))
    free, clifford = (
        create("resnet", algebra, 1, 1, hidden_channels=32),
        create("clifford_resnet", algebra, 1, 1, hidden_channels=8),
    )
    kernels = [sum(p.numel() for p in network.blocks.parameters() if p.ndim > 2) for network in (free, clifford)]
    assert kernels[0] == 4 * kernels[1]


def test_output_keeps_the_scale_of_the_input():
    conv = CliffordConv(CliffordAlgebra((1, 1)), 16, 16, 5, padding="periodic")
    assert 0.8 < float(conv(torch.randn(2, 64, 16, 16)).detach().std()) < 1.25


def test_mirrors_turn_what_is_behind_a_wall():
    """Unlike plain channels, multivectors can be reflected in a wall."""
    network = CliffordResNet(CliffordAlgebra((1, 1)), 1, 1, 2, (1,), 3, padding="mirror")
    assert network(torch.randn(1, 1, 4, 6, 6)).shape == (1, 1, 4, 6, 6)
