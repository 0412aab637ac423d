import itertools
import math

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CliffordSteerableConv, CliffordSteerableConvTranspose, Downsample, Upsample
from cliffsteer.symmetry import SignedPermutation, lattice_symmetries
from cliffsteer.testing import assert_equivariant

SIGNATURES = [(1,), (-1, 1), (1, 1), (1, 1, 1), (1, -1, -1), (1, -1, -1, -1)]


def field(algebra, size, generator, channels=2):
    return torch.randn(2, channels, algebra.n_blades, *[size] * algebra.dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
@pytest.mark.parametrize("factor", [2, 3])
def test_resampling_commutes_with_the_grid_symmetries(signature, factor, generator):
    algebra = CliffordAlgebra(signature)
    some = list(itertools.islice(lattice_symmetries(algebra), 0, None, 13 if algebra.dim == 4 else 1))
    options = {"group": some, "tolerance": 1e-13}
    assert_equivariant(Downsample(algebra, factor), field(algebra, 2 * factor, generator), algebra, **options)
    for mode, padding in [("nearest", "zeros"), ("linear", "mirror"), ("linear", "periodic"), ("linear", "zeros")]:
        up = Upsample(algebra, factor, mode, padding)
        assert_equivariant(up, field(algebra, 3, generator), algebra, **options)


def test_downsampling_undoes_nearest_upsampling_and_keeps_the_mean(generator):
    algebra = CliffordAlgebra((1, 1, 1))
    x = field(algebra, 4, generator)
    assert torch.allclose(Downsample(algebra, 2)(Upsample(algebra, 2, "nearest")(x)), x)
    assert torch.allclose(Downsample(algebra, 2)(x).mean((3, 4, 5)), x.mean((3, 4, 5)))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_linear_upsampling_keeps_linear_fields_and_is_of_second_order(factor):
    algebra = CliffordAlgebra((1, 1))
    up = Upsample(algebra, factor, "linear", "periodic")
    centres = torch.arange(8, dtype=torch.float64) + 0.5
    fine = (torch.arange(8 * factor, dtype=torch.float64) + 0.5) / factor
    x = (2 * centres[:, None] - 3 * centres).expand(1, 1, 4, 8, 8)
    expected = (2 * fine[:, None] - 3 * fine).expand(1, 1, 4, -1, -1)
    inner = slice(factor, -factor)
    assert torch.allclose(up(x)[..., inner, inner], expected[..., inner, inner])

    def wave(n):
        return torch.sin(2 * math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n).expand(1, 1, 4, n, n)

    errors = [(up(wave(n)) - wave(n * factor)).abs().max() for n in (16, 32)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("signature", SIGNATURES[:-1], ids=str)
@pytest.mark.parametrize("padding", ["zeros", "mirror", "periodic"])
def test_transposed_convolution_with_odd_stride_is_equivariant(signature, padding, generator):
    algebra = CliffordAlgebra(signature)
    up = CliffordSteerableConvTranspose(algebra, 2, 2, 3, stride=3, padding=padding, kernel="complete").double()
    x = field(algebra, 3, generator)
    assert up(x).shape[3:] == (9,) * algebra.dim
    assert_equivariant(up, x, algebra)


def test_transposed_convolution_with_even_stride_is_equivariant_about_the_points_of_a_periodic_grid(generator):
    algebra = CliffordAlgebra((1, 1))
    up = CliffordSteerableConvTranspose(algebra, 2, 2, 5, stride=2, kernel="complete").double()
    x = field(algebra, 6, generator)
    g = SignedPermutation((1, 0), (-1, 1))

    def about_first_point(x):
        moved = g.act(algebra, x)
        flipped = [3 + axis for axis, sign in zip(g.axes, g.signs, strict=True) if sign < 0]
        return moved.roll([1] * len(flipped), flipped)

    assert torch.allclose(up(about_first_point(x)), about_first_point(up(x)), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(up(g.act(algebra, x)), g.act(algebra, up(x)), atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolution_is_the_adjoint_of_the_strided_one(stride, generator):
    """<g, A f> = <Aᵀ g, f> with the kernel turned around and transposed; blades of R^2 are orthonormal."""
    algebra = CliffordAlgebra((1, 1))
    down = CliffordSteerableConv(algebra, 2, 3, 5, stride=stride, padding="periodic", bias=False, kernel="complete")
    up = CliffordSteerableConvTranspose(algebra, 3, 2, 5, stride=stride, bias=False, kernel=_Adjoint(down.kernel))
    f, g = field(algebra, 6, generator), field(algebra, 6 // stride, generator, 3)
    shift = (stride - 1) // 2 if stride % 2 else 0  # the strided convolution starts at the first cell
    with torch.no_grad():
        forward = down.double()(f.roll([-shift, -shift], [3, 4]))
        back = up.double()(g) / stride
    assert float((g * forward).sum()) == pytest.approx(float((back * f).sum()), rel=1e-12)


class _Adjoint(torch.nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def forward(self):
        return self.kernel().transpose(0, 1).flip(2, 3)


@pytest.mark.parametrize("stride", [2, 3])
def test_transposed_convolution_keeps_the_variance(stride, generator):
    algebra = CliffordAlgebra((1, 1))
    torch.manual_seed(0)
    up = CliffordSteerableConvTranspose(algebra, 16, 16, 7, stride=stride, kernel="complete").double()
    x = field(algebra, 16, generator, 16)
    with torch.no_grad():
        assert float(up(x).var()) == pytest.approx(1, rel=0.2)


def test_refusals():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"`stride` \(=2\) must be odd unless all axes are periodic"):
        CliffordSteerableConvTranspose(algebra, 1, 1, 3, stride=2, padding="zeros")
    with pytest.raises(ValueError, match=r"`kernel_size` \(=3\) must be at least `stride` \(=5\)"):
        CliffordSteerableConvTranspose(algebra, 1, 1, 3, stride=5)
    with pytest.raises(ValueError, match=r"`padding` \(='valid'\) of a transposed convolution"):
        CliffordSteerableConvTranspose(algebra, 1, 1, 3, padding="valid")
    with pytest.raises(ValueError, match=r"`factor` \(=0\) must be at least 1"):
        Downsample(algebra, 0)
    with pytest.raises(ValueError, match=r"`mode` \(='cubic'\) must be 'nearest' or 'linear'"):
        Upsample(algebra, 2, "cubic")
    with pytest.raises(RuntimeError, match=r"the grid \(5, 6\) must have multiples of 2 cells"):
        Downsample(algebra, 2)(torch.zeros(1, 1, 4, 5, 6))
