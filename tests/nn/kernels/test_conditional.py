import itertools

import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.nn import CliffordSteerableConv, ConditionalKernel
from cliffsteer.nn.kernels.basis import equivariant_maps
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

SIGNATURES = [s for n in (1, 2, 3) for s in itertools.product((1, -1), repeat=n)] + [(1, -1, -1, -1)]


def small(algebra, into=2, out=2, size=3, **options):
    return ConditionalKernel(algebra, into, out, size, hidden_channels=3, layers=2, **options).double()


def positions(algebra, x):
    return x, (x.square() * torch.tensor(algebra.signature).unsqueeze(1)).sum(0)


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_steerable_in_offset_and_condition_together(signature, generator):
    """K(gv; ρ(g)c) = ρ(g) K(v; c) ρ(g)⁻¹ as a function, boosts and generic rotations included."""
    algebra = CliffordAlgebra(signature)
    kernel = small(algebra)
    x = torch.randn(algebra.dim, 4, generator=generator, dtype=torch.float64)
    pooled = torch.randn(3, 2, algebra.n_blades, generator=generator, dtype=torch.float64)
    for _ in range(3):
        g = algebra.random_orthogonal(generator)
        rho = algebra.outermorphism(g)
        turned = kernel.at(positions(algebra, g @ x), torch.einsum("kl,bil->bik", rho, pooled))
        expected = torch.einsum(
            "jk,boiklp,lm->boijmp", rho, kernel.at(positions(algebra, x), pooled), torch.linalg.inv(rho)
        )
        assert (turned - expected).norm() < 1e-10 * expected.norm()


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_convolution_is_equivariant_under_the_lattice(signature, generator):
    algebra = CliffordAlgebra(signature)
    conv = CliffordSteerableConv(
        algebra, 2, 1, 3, kernel="conditional", kernel_options={"hidden_channels": 3, "layers": 2}, padding="periodic"
    ).double()
    x = torch.randn(2, 2, algebra.n_blades, *[4] * algebra.dim, generator=generator, dtype=torch.float64)
    elements = itertools.islice(lattice_symmetries(algebra, Grid(x.shape[3:])), 0, None, 11 if algebra.dim == 4 else 1)
    assert_equivariant(conv, x, algebra, group=elements, tolerance=1e-12)


def test_each_sample_has_its_own_kernel(generator):
    algebra = CliffordAlgebra((1, 1))
    conv = CliffordSteerableConv(algebra, 3, 2, 3, kernel="conditional", stride=2, dilation=2).double()
    x = torch.randn(3, 3, 4, 9, 8, generator=generator, dtype=torch.float64)
    alone = torch.cat([conv(sample) for sample in x.split(1)])
    assert torch.allclose(conv(x), alone, rtol=1e-12, atol=1e-12)
    other = x.clone()
    other[0] += 1.0
    assert not torch.allclose(conv(other)[0], conv(x)[0] - conv.bias[:, None, None, None], atol=1e-3)
    assert torch.allclose(conv(other)[1:], conv(x)[1:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1), (1, -1, -1)], ids=str)
def test_a_scalar_condition_gives_an_implicit_kernel_and_a_vector_frees_it(signature, generator):
    """Without grades above 0 in the condition the span is that of the implicit kernel, 3n + 1 of the 4n maps."""
    algebra = CliffordAlgebra(signature)
    n = algebra.dim
    kernel = small(algebra, 1, 1)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    pooled = torch.randn(1, 1, algebra.n_blades, generator=generator, dtype=torch.float64)
    basis = equivariant_maps(algebra, x)[: 3 * n + 1].flatten(1, 2)  # (map, entry, point)

    def outside(condition):
        values = kernel.at(positions(algebra, x), condition)[0, 0, 0].flatten(0, 1)  # (entry, point)
        fit = torch.linalg.lstsq(basis.permute(2, 1, 0), values.T.unsqueeze(2)).solution
        rest = values.T.unsqueeze(2) - basis.permute(2, 1, 0) @ fit
        return float(rest.norm() / values.norm())

    with torch.no_grad():
        assert outside(pooled * (torch.tensor(algebra.grades) == 0)) < 1e-10
        assert outside(pooled) > 1e-3


@pytest.mark.parametrize("signature", [(1,), (-1,), (1, 1), (1, -1), (1, 1, 1), (1, -1, -1)], ids=str)
def test_white_input_keeps_its_variance(signature):
    algebra = CliffordAlgebra(signature)
    conv = CliffordSteerableConv(algebra, 8, 8, 5, kernel="conditional", padding="periodic")
    with torch.no_grad():
        y = conv(torch.randn(2, 8, algebra.n_blades, *[{1: 64, 2: 24, 3: 10}[algebra.dim]] * algebra.dim))
    assert 0.5 < float(y.var()) < 2


@pytest.mark.parametrize("signature", [(1,), (1, -1, -1), (1, -1, -1, -1)], ids=str)
def test_exports_for_any_batch_and_grid_and_takes_an_empty_batch(signature):
    algebra, n = CliffordAlgebra(signature), len(signature)
    conv = CliffordSteerableConv(algebra, 2, 1, 3, kernel=small(algebra, out=1).float(), stride=2).eval()
    sizes = dict.fromkeys((0, *range(3, 3 + n)), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(conv, (torch.randn(2, 2, 2**n, *[5] * n),), dynamic_shapes=(sizes,)).module()
        x = torch.randn(3, 2, 2**n, *[6] * n)
        assert torch.allclose(program(x), conv(x), atol=1e-5)
        assert conv(x[:0]).shape == (0, *conv(x).shape[1:])


def test_gradients_reach_every_parameter_and_the_condition(generator):
    algebra = CliffordAlgebra((1, 1))
    conv = CliffordSteerableConv(algebra, 2, 2, 3, kernel=small(algebra)).double()
    x = torch.randn(2, 2, 4, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    conv(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in conv.parameters())
    with torch.no_grad():
        step, direction = 1e-6, torch.randn(x.shape, generator=generator, dtype=torch.float64)
        slope = (conv(x + step * direction).square().sum() - conv(x - step * direction).square().sum()) / (2 * step)
    assert float((x.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_compiles_without_breaks():
    algebra = CliffordAlgebra((1, 1))
    conv = CliffordSteerableConv(algebra, 2, 2, 3, kernel=ConditionalKernel(algebra, 2, 2, 3, 3, 2))
    x = torch.randn(2, 2, 4, 6, 6)
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), conv(x), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition_channels": 0}, r"`condition_channels` \(=0\) must be at least 1"),
        ({"hidden_channels": 0}, r"`hidden_channels` \(=0\) must be at least 1"),
        ({"layers": 0}, r"`layers` \(=0\) must be at least 1"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ConditionalKernel(CliffordAlgebra((1, 1)), 1, 1, 3, **options)


def test_refuses_the_spectral_strategy_and_even_kernels():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match="this one is a ConditionalKernel of size 3"):
        CliffordSteerableConv(algebra, 1, 1, 3, kernel="conditional", strategy="spectral")
    with pytest.raises(ValueError, match="must be odd"):
        CliffordSteerableConv(algebra, 1, 1, 4, kernel="conditional")
