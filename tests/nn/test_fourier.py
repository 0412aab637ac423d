import math

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn.fourier import SteerableSpectralConv
from cliffsteer.nn.kernels.basis import equivariant_maps
from cliffsteer.symmetry import SignedPermutation
from cliffsteer.testing import assert_equivariant

SIGNATURES = [(1,), (1, 1), (1, -1), (1, 1, 1), (1, -1, -1), (-1, 1, 1)]


def field(algebra, size, generator, channels=1):
    return torch.randn(2, channels, algebra.n_blades, *[size] * algebra.dim, generator=generator, dtype=torch.float64)


def smooth(algebra, size, modes, generator):
    """A random field without frequencies above ``modes``."""
    layer = SteerableSpectralConv(algebra, 1, 1, modes).double()
    represent(layer, {("identity", k): torch.ones_like(layer.q) for k in range(algebra.n_grades)})
    with torch.no_grad():
        return layer(field(algebra, size, generator))


def represent(layer, radial, extent=None):
    """Set the radial values of maps by name; a function of the layer's q, all others zero."""
    n = layer.algebra.dim
    names = [("identity", k) for k in range(n + 1)] + [("wedge", k) for k in range(n)]
    names += [("contract", k) for k in range(1, n + 1)] + [("both", k) for k in range(1, n)]
    last = _index_of_ones(layer)
    unit = layer._frequencies(extent or (1.0,) * n)[last].view(n, 1)
    bare = equivariant_maps(layer.algebra, unit)[..., 0].flatten(1).norm(dim=1)
    scale = layer.maps[last].flatten(1).norm(dim=1) / bare
    with torch.no_grad():
        layer.weight.zero_()
        for name, values in radial.items():
            b = names.index(name)
            layer.weight[b, :, 0, 0] = values / scale[b]


def _index_of_ones(layer):
    """Where k = (modes, ..., modes), in a cube (1, ..., 1) in the layer's units, sits among the kept frequencies."""
    m, n = layer.modes, layer.algebra.dim
    return sum(m * (2 * m + 1) ** (n - 2 - axis) * (m + 1) for axis in range(n - 1)) + m


def inverse(q):
    return torch.where(q == 0, 0, 1 / torch.where(q == 0, 1, q))


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_equivariance_and_translations(signature, generator):
    algebra = CliffordAlgebra(signature)
    layer = SteerableSpectralConv(algebra, 2, 3, 2).double()
    x = field(algebra, 6, generator, 2)
    assert_equivariant(layer, x, algebra, tolerance=1e-12)
    shifted = layer(x.roll([1] * algebra.dim, list(range(3, x.ndim))))
    assert torch.allclose(shifted, layer(x).roll([1] * algebra.dim, list(range(3, x.ndim))), atol=1e-12)


def test_the_same_function_at_every_resolution(generator):
    algebra = CliffordAlgebra((1, 1))
    layer = SteerableSpectralConv(algebra, 1, 1, 3).double()
    coarse = smooth(algebra, 8, 3, generator)
    half = torch.fft.rfftn(coarse, dim=(3, 4))
    wide = torch.zeros(2, 1, 4, 24, 13, dtype=half.dtype)
    wide[..., :4, :4], wide[..., -3:, :4] = half[..., :4, :4], half[..., -3:, :4]
    fine = torch.fft.irfftn(wide, s=(24, 24), dim=(3, 4)) * 9
    assert torch.allclose(layer(fine)[..., ::3, ::3], layer(coarse), atol=1e-12)


@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1)], ids=str)
def test_leray_projection_and_helmholtz_splitting_are_single_layers(signature, generator):
    """P u = u - ∇∇⁻²∇·u: free of divergence, idempotent, and u - P u is a gradient."""
    algebra, m = CliffordAlgebra(signature), 3
    n = algebra.dim
    layer = SteerableSpectralConv(algebra, 1, 1, m).double()
    q = layer.q
    represent(layer, {("identity", 1): 1 - (q != 0).double() / n, ("both", 1): -inverse(q)})
    u = smooth(algebra, 8, m, generator) * (torch.tensor(algebra.grades) == 1).view(-1, *[1] * n)
    with torch.no_grad():
        solenoidal = layer(u)
        assert torch.allclose(layer(solenoidal), solenoidal, atol=1e-12)
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)] * n, indexing="ij"))
    vector = torch.fft.fftn(solenoidal[:, 0, 1 : n + 1], dim=tuple(range(2, 2 + n)))
    rest = torch.fft.fftn((u - solenoidal)[:, 0, 1 : n + 1], dim=tuple(range(2, 2 + n)))
    assert (k * vector).sum(1).abs().max() < 1e-10
    curl = torch.einsum("i...,bj...->bij...", k.to(rest), rest)
    assert (curl - curl.transpose(1, 2)).abs().max() < 1e-10
    assert rest.abs().max() > 1


@pytest.mark.parametrize("told", [True, False])
def test_leray_projection_is_exact_in_a_box_of_unequal_sides_that_is_told(told, generator):
    algebra, shape = CliffordAlgebra((1, 1)), (8, 16)
    extent = shape if told else (1.0, 1.0)
    layer = SteerableSpectralConv(algebra, 1, 1, 3, extent).double()
    split = {("identity", 1): 1 - (layer.q != 0).double() / 2, ("both", 1): -inverse(layer.q)}
    represent(layer, split, extent)
    u = torch.randn(2, 1, 4, *shape, generator=generator, dtype=torch.float64)
    u[:, :, [0, 3]] = 0
    with torch.no_grad():
        vector = torch.fft.fftn(layer(u)[:, 0, 1:3], dim=(2, 3))
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(n, dtype=torch.float64) for n in shape], indexing="ij"))
    divergence = (k * vector).sum(1).abs().max()
    assert divergence < 1e-12 if told else divergence > 0.1
    assert vector.abs().max() > 1


@pytest.mark.parametrize("signature", [(1,), (1, 1), (1, 1, 1)], ids=str)
def test_the_wave_propagator_is_a_single_layer(signature, generator):
    """∂ₜφ = ∇ ⌋ v, ∂ₜv = ∇ ∧ φ, for any time at once, against the exponential of the operator."""
    algebra, m, t = CliffordAlgebra(signature), 2, 0.37
    n, layer = algebra.dim, SteerableSpectralConv(algebra, 1, 1, m).double()
    q = layer.q
    angle = 2 * math.pi * m * q.sqrt() * t
    cosine, sine = angle.cos(), torch.sin(angle) * inverse(q).sqrt()
    turned = {("identity", 0): cosine, ("wedge", 0): sine, ("contract", 1): sine}
    turned[("identity", 1)] = torch.where(q == 0, 1, 1 - (1 - cosine) / n)
    represent(layer, turned | ({("both", 1): -(1 - cosine) * inverse(q)} if n > 1 else {}))
    f = smooth(algebra, 6, m, generator) * (torch.tensor(algebra.grades) <= 1).view(-1, *[1] * n)
    axes = tuple(range(3, 3 + n))
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(6, 1 / 6, dtype=torch.float64)] * n, indexing="ij"))
    operator = torch.zeros(*k.shape[1:], 1 + n, 1 + n, dtype=torch.complex128)
    operator[..., 0, 1:] = operator[..., 1:, 0] = 2j * math.pi * k.movedim(0, -1)
    spectrum = torch.fft.fftn(f[:, :, : 1 + n], dim=axes).movedim(2, -1).unsqueeze(-1)
    expected = torch.fft.ifftn((torch.matrix_exp(t * operator) @ spectrum).squeeze(-1).movedim(-1, 2), dim=axes).real
    with torch.no_grad():
        assert torch.allclose(layer(f)[:, :, : 1 + n], expected, atol=1e-11)


@pytest.mark.parametrize("signature", SIGNATURES[:4], ids=str)
def test_the_heat_propagator_is_a_single_layer(signature, generator):
    algebra, m, nu_t = CliffordAlgebra(signature), 3, 0.01
    layer = SteerableSpectralConv(algebra, 1, 1, m).double()
    decay = torch.exp(-nu_t * (2 * math.pi * m) ** 2 * layer.q)
    represent(layer, {("identity", k): decay for k in range(algebra.n_grades)})
    f = smooth(algebra, 8, m, generator)
    axes = tuple(range(3, 3 + algebra.dim))
    k = torch.meshgrid(*[torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)] * algebra.dim, indexing="ij")
    q = sum(sign * a.square() for sign, a in zip(algebra.signature, k, strict=True))
    expected = torch.fft.ifftn(torch.fft.fftn(f, dim=axes) * torch.exp(-nu_t * (2 * math.pi) ** 2 * q), dim=axes).real
    with torch.no_grad():
        assert torch.allclose(layer(f), expected, rtol=1e-9, atol=1e-11)


def test_the_maxwell_propagator_is_a_single_layer(generator):
    """∂ₜE = -∇ ⌋ B, ∂ₜB = -∇ ∧ E in R^3, for any time at once, against the exponential of the operator."""
    algebra, m, t = CliffordAlgebra((1, 1, 1)), 2, 0.37
    layer = SteerableSpectralConv(algebra, 1, 1, m).double()
    q, unit = layer.q, 2 * math.pi * m
    angle = unit * q.sqrt() * t
    cosine, sine = angle.cos(), torch.sin(angle) * inverse(q).sqrt()
    represent(
        layer,
        {  # on each grade the part that k moves turns, the rest stays
            ("identity", 1): torch.where(q == 0, 1, cosine + (1 - cosine) / 3),
            ("both", 1): (1 - cosine) * inverse(q),
            ("identity", 2): torch.where(q == 0, 1, 1 - (1 - cosine) * 2 / 3),
            ("both", 2): -(1 - cosine) * inverse(q),
            ("wedge", 1): -sine,
            ("contract", 2): -sine,
        },
    )
    grades = torch.tensor(algebra.grades)
    f = smooth(algebra, 6, m, generator) * ((grades == 1) | (grades == 2)).view(-1, 1, 1, 1)
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(6, 1 / 6, dtype=torch.float64)] * 3, indexing="ij"))
    vector = algebra.cayley[1:4].double()  # (left, out, right)
    step = grades[:, None] - grades[None, :]
    multiply = torch.einsum("ijk,ixyz->xyzjk", vector * (step.abs() == 1), 2 * math.pi * k)
    moving = ((grades == 1)[:, None] & (grades == 2)[None, :]) | ((grades == 2)[:, None] & (grades == 1)[None, :])
    operator = torch.matrix_exp(-1j * t * multiply * moving)
    spectrum = torch.fft.fftn(f, dim=(3, 4, 5))
    expected = torch.fft.ifftn(torch.einsum("xyzjk,bckxyz->bcjxyz", operator, spectrum), dim=(3, 4, 5)).real
    with torch.no_grad():
        assert torch.allclose(layer(f), expected, atol=1e-11)


@pytest.mark.parametrize("signature", [(1, 1), (1, -1, -1)], ids=str)
def test_white_input_keeps_its_variance(signature, generator):
    algebra = CliffordAlgebra(signature)
    torch.manual_seed(0)
    layer = SteerableSpectralConv(algebra, 16, 16, 4).double()
    with torch.no_grad():
        y = layer(field(algebra, 9, generator, 16))  # all frequencies are kept
    assert float(y.var()) == pytest.approx(1, rel=0.2)


def test_every_weight_matters_and_gradients_are_right(generator):
    algebra = CliffordAlgebra((1, -1))
    layer = SteerableSpectralConv(algebra, 1, 2, 1).double()
    x = field(algebra, 4, generator).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).square().sum().backward()
    alive = layer.weight.grad.abs().sum((2, 3)) > 0
    beyond = torch.ones_like(alive)
    beyond[algebra.n_grades :, 0] = False  # at k = 0 only the identities are left
    assert torch.equal(alive, beyond)


def test_a_domain_that_is_longer_along_one_axis(generator):
    """Wave vectors are those of the domain: turning field and domain together changes nothing."""
    algebra = CliffordAlgebra((1, 1))
    wide = SteerableSpectralConv(algebra, 1, 1, 2, extent=(2.0, 1.0)).double()
    tall = SteerableSpectralConv(algebra, 1, 1, 2, extent=(1.0, 2.0)).double()
    tall.load_state_dict(wide.state_dict())
    g = SignedPermutation((1, 0), (1, -1))
    x = torch.randn(1, 1, 4, 12, 6, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(tall(g.act(algebra, x)), g.act(algebra, wide(x)), atol=1e-12)


def test_refusals():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"`modes` \(=0\) must be at least 1"):
        SteerableSpectralConv(algebra, 1, 1, 0)
    with pytest.raises(ValueError, match=r"`extent` \(=\(1, 0\)\) must hold a positive length for each of 2 axes"):
        SteerableSpectralConv(algebra, 1, 1, 2, (1, 0))
    with pytest.raises(RuntimeError, match=r"2 modes need 2 axes of at least 5 cells"):
        SteerableSpectralConv(algebra, 1, 1, 2)(torch.zeros(1, 1, 4, 4, 8))
