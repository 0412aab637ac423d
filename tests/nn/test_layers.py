"""Layers without a grid: equivariance under random elements of O(p, q), shapes, gradients, errors."""

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import (
    CEGNN,
    MVGELU,
    ChannelProduct,
    GeometricProductLayer,
    GradeNorm,
    MVLayerNorm,
    MVLinear,
    ProductGELU,
    ReferenceLayerNorm,
    WeightedProduct,
)
from cliffsteer.nn.norm import layer_norm
from cliffsteer.testing import assert_equivariant

SIGNATURES = [(1,), (-1,), (1, 1), (1, -1), (1, 1, 1), (1, -1, -1), (-1, 1, 1), (1, -1, -1, -1)]
LAYERS = {
    "linear": lambda a: MVLinear(a, 3, 5),
    "linear, one matrix": lambda a: MVLinear(a, 3, 5, per_grade=False),
    "product layer": lambda a: GeometricProductLayer(a, 3, 2),
    "product layer, bare": lambda a: GeometricProductLayer(a, 3, 2, first_order=False, normalize=False),
    "product layer, reference norm": lambda a: GeometricProductLayer(a, 3, 2, norm="reference"),
    "product nonlinearity": lambda a: ProductGELU(a, 3),
    "grade norm": lambda a: GradeNorm(a, 3),
    "layer norm": lambda a: MVLayerNorm(a, 3),
    "layer norm, reference": lambda a: ReferenceLayerNorm(a, 3),
    "gelu": lambda a: MVGELU(),
}


def randomised(module):
    """Move every parameter off its initial constant, so that none is tested only at 0 or 1."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return module.double()


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_equivariance(name, signature, generator):
    algebra = CliffordAlgebra(signature)
    layer = randomised(LAYERS[name](algebra))
    x = torch.randn(4, 3, algebra.n_blades, dtype=torch.float64)
    assert_equivariant(layer, x, algebra, group="orthogonal", generator=generator)


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_network_equivariance(signature, generator):
    algebra = CliffordAlgebra(signature)
    network = randomised(CEGNN(algebra, 1, 4, 3, 3))
    x = torch.randn(4, 1, algebra.n_blades, dtype=torch.float64)
    assert_equivariant(network, x, algebra, group="orthogonal", generator=generator)


@pytest.mark.parametrize("name", LAYERS)
def test_grid_axes_are_pointwise(name):
    algebra = CliffordAlgebra((1, -1, -1))
    layer = randomised(LAYERS[name](algebra))
    x = torch.randn(2, 3, 8, 2, 3, 4, dtype=torch.float64)
    points = x.permute(0, 3, 4, 5, 1, 2).reshape(-1, 3, 8)
    expected = layer(points).unflatten(0, (2, 2, 3, 4)).permute(0, 4, 5, 1, 2, 3)
    assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("signature", [(1, 1), (1, -1)], ids=str)
def test_gradients(name, signature):
    algebra = CliffordAlgebra(signature)
    layer = randomised(LAYERS[name](algebra))
    x = torch.randn(2, 3, algebra.n_blades, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), atol=1e-6)


def test_weighted_product_is_the_dense_sum():
    algebra = CliffordAlgebra((1, -1, -1))
    layer = WeightedProduct(algebra, 3, 2).double()
    a, b = torch.randn(4, 3, 8, dtype=torch.float64), torch.randn(4, 3, 8, dtype=torch.float64)
    expected = torch.zeros(4, 2, 8, dtype=torch.float64)
    for p, (left, out, right) in enumerate(algebra.paths):
        product = algebra.grade(algebra.geometric_product(algebra.grade(a, left), algebra.grade(b, right)), out)
        expected += torch.einsum("on,bnj->boj", layer.weight[..., p], product)
    assert torch.allclose(layer(a, b), expected, atol=1e-12)


def test_channel_product_is_the_diagonal_of_the_weighted_product():
    algebra = CliffordAlgebra((1, -1, -1))
    layer, full = ChannelProduct(algebra, 3).double(), WeightedProduct(algebra, 3, 3).double()
    with torch.no_grad():
        full.weight.copy_(torch.diag_embed(layer.weight.T).permute(1, 2, 0))
    a, b = torch.randn(4, 3, 8, 2, dtype=torch.float64), torch.randn(4, 3, 8, 2, dtype=torch.float64)
    assert torch.allclose(layer(a, b), full(a, b), atol=1e-12)


def test_product_nonlinearity_makes_scalars_of_vectors():
    """Scalar gates leave a field of vectors to itself; products give it the scalars that its invariants are."""
    algebra = CliffordAlgebra((1, 1, 1))
    x = algebra.embed(torch.randn(2, 3, 3, 4), 1, 2)
    assert MVGELU()(x)[:, :, 0].eq(0).all()
    assert ProductGELU(algebra, 3)(x).detach()[:, :, 0].abs().mean() > 0.1


def test_product_nonlinearity_keeps_the_scale():
    for signature in ((1, 1), (1, 1, 1), (1, -1, -1)):
        algebra = CliffordAlgebra(signature)
        x = torch.randn(8, 32, algebra.n_blades, 64)
        assert 0.3 < float(ProductGELU(algebra, 32)(x).detach().std()) < 1.2


def test_channel_product_keeps_its_factors_only():
    algebra = CliffordAlgebra((1, 1, 1))
    layer, kept = ChannelProduct(algebra, 2), []
    a, b = torch.randn(1, 2, 8, 99, requires_grad=True), torch.randn(1, 2, 8, 99)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(a, b)
    assert sum(size for size in kept if size >= a.numel()) <= 2 * a.numel()


def test_null_fields_are_not_amplified():
    """A plane wave e1 + e2 in R^{1,1} has q = 0: normalising must leave it bounded."""
    algebra = CliffordAlgebra((1, -1))
    null = torch.zeros(1, 1, 4, dtype=torch.float64)
    null[..., 1] = null[..., 2] = 1000.0
    for layer in (MVLayerNorm(algebra, 1).double(), GradeNorm(algebra, 1).double()):
        assert layer(null).abs().max() <= 2 * 1000.0


def test_layer_norm_sets_the_scale_of_euclidean_fields():
    algebra = CliffordAlgebra((1, 1, 1))
    x = 50 * torch.randn(2, 16, 8, dtype=torch.float64)
    y = MVLayerNorm(algebra, 16).double()(x).detach()
    assert torch.allclose(y.square().sum(2).mean(1), torch.ones(2, dtype=torch.float64), atol=1e-6)


def test_group_norm_keeps_what_is_weak_weak():
    algebra = CliffordAlgebra((1, 1, 1))
    x = torch.randn(2, 16, 8, 5, 5, 5, dtype=torch.float64)
    x[..., 0] *= 0.01
    y = layer_norm("group", algebra, 16).double()(50 * x).detach()
    one = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(y.square().sum(2).mean((1, 2, 3, 4)), one, atol=1e-6, rtol=0)
    torch.testing.assert_close(y[0, ..., 0].norm() / y[0].norm(), x[0, ..., 0].norm() / x[0].norm())


def test_errors():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(RuntimeError, match=r"MVLinear expects \(batch, 3, 4, ...\): 3 channel\(s\) of 4 blades"):
        MVLinear(algebra, 3, 2)(torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"`norm` \(='batch'\) must be 'layer', 'group', 'reference' or 'none'"):
        layer_norm("batch", algebra, 3)
    with pytest.raises(ValueError, match=r"`norm` \(='rms'\) must be one of 'smooth', 'reference'"):
        GradeNorm(algebra, 3, "rms")
