import itertools

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CliffordSteerableConv, CompleteKernel, ImplicitKernel
from cliffsteer.nn.kernels.basis import equivariant_maps, map_targets
from cliffsteer.nn.spectral import spectral_convolution
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

SIGNATURES = [s for n in (1, 2, 3) for s in itertools.product((1, -1), repeat=n)] + [(1, -1, -1, -1)]


def steerable_by(kernel, elements):
    """Largest deviation of the sampled kernel from K(gx) = ρ(g) K(x) ρ(g)⁻¹."""
    algebra, nb = kernel.algebra, kernel.algebra.n_blades
    k = kernel().detach().view(kernel.out_channels, nb, kernel.in_channels, nb, *[kernel.kernel_size] * algebra.dim)
    errors = []
    for g in elements:
        rho = algebra.outermorphism(g.matrix)
        turned = torch.einsum("ab,obic...,dc->oaid...", rho, g.move(k), rho)
        errors.append(float((turned - k).norm() / k.norm()))
    return errors


@pytest.mark.parametrize("options", [{}, {"radial": "smooth"}], ids=str)
@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_steerable_and_equivariant(signature, options):
    algebra = CliffordAlgebra(signature)
    kernel = CompleteKernel(algebra, 2, 2, 3, **options).double()
    assert max(steerable_by(kernel, list(lattice_symmetries(algebra))[:: 1 + 10 * (algebra.dim == 4)])) < 1e-7
    conv = CliffordSteerableConv(algebra, 2, 2, 3, kernel=kernel, padding="periodic").double()
    if algebra.dim < 4:
        x = torch.randn(1, 2, algebra.n_blades, *[4] * algebra.dim, dtype=torch.float64)
        assert_equivariant(conv, x, algebra, tolerance=1e-13)


@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1), (1, -1, -1)], ids=str)
def test_so_breaks_reflections_and_keeps_rotations(signature):
    algebra = CliffordAlgebra(signature)
    kernel = CompleteKernel(algebra, 2, 1, 3, group="SO").double()
    elements = list(lattice_symmetries(algebra))
    proper = [float(torch.linalg.det(g.matrix)) > 0 for g in elements]
    errors = steerable_by(kernel, elements)
    assert max(e for e, p in zip(errors, proper, strict=True) if p) < 1e-12
    assert min(e for e, p in zip(errors, proper, strict=True) if not p) > 0.1


@pytest.mark.parametrize("radial", ["orbit", "smooth"])
@pytest.mark.parametrize("signature", [(1, -1), (1, -1, -1), (-1, 1, 1)], ids=str)
def test_orthochronous_tells_past_from_future(signature, radial):
    algebra = CliffordAlgebra(signature)
    kernel = CompleteKernel(algebra, 2, 1, 5, group="orthochronous", radial=radial).double()
    elements = list(lattice_symmetries(algebra))
    keeps_time = [float(g.matrix[0, 0]) > 0 for g in elements]
    errors = steerable_by(kernel, elements)
    assert max(e for e, k in zip(errors, keeps_time, strict=True) if k) < 1e-12
    assert min(e for e, k in zip(errors, keeps_time, strict=True) if not k) > 0.1


def test_a_causal_kernel_sees_only_its_past_light_cone():
    algebra = CliffordAlgebra((1, -1, -1))
    kernel = CompleteKernel(algebra, 1, 1, 5, group="orthochronous", causal=True)
    k = kernel().detach().abs().amax((0, 1)).flatten()
    t, x, y = kernel.basis.offsets.unbind(1)
    past = (t < 0) & (t**2 >= x**2 + y**2) | ((t == 0) & (x == 0) & (y == 0))
    assert k[past].min() > 0
    assert k[~past].max() == 0
    conv = CliffordSteerableConv(algebra, 1, 1, 5, kernel=kernel, padding="zeros")
    impulse = torch.zeros(1, 1, 8, 9, 9, 9)
    impulse[..., 4, 4, 4] = 1
    response = (conv(impulse) - conv(torch.zeros_like(impulse))).abs().amax((0, 1, 2))
    assert not response[:4].any()
    assert response[5].nonzero().sub(4).abs().sum(1).max() == 1  # inside the future light cone


@pytest.mark.parametrize("options", [{}, {"radial": "smooth"}, {"group": "SO"}], ids=str)
@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1), (1, -1, -1)], ids=str)
def test_initialisation_keeps_the_variance_in_every_grade(signature, options):
    algebra = CliffordAlgebra(signature)
    kernel = CompleteKernel(algebra, 48, 48, 5, **options)
    nb = algebra.n_blades
    variance = kernel().detach().view(48, nb, -1).square().sum(2).mean(0)
    for k in range(algebra.n_grades):
        assert float(variance[algebra.grade_slice(k)].mean()) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1), (1, -1, -1)], ids=str)
def test_the_implicit_kernel_lacks_n_minus_1_maps(signature):
    """At every point it spans 3n + 1 of the 4n dimensions."""
    algebra = CliffordAlgebra(signature)
    kernels = torch.stack([ImplicitKernel(algebra, 1, 1, 3, 4, 2).double()().detach().flatten(2) for _ in range(60)])
    point = 3**algebra.dim // 2 + 1  # next to the origin along the last axis
    complete = torch.stack([CompleteKernel(algebra, 1, 1, 3).double()().detach().flatten(2) for _ in range(60)])
    assert torch.linalg.matrix_rank(kernels[..., point].flatten(1), rtol=1e-9) == 3 * algebra.dim + 1
    assert torch.linalg.matrix_rank(complete[..., point].flatten(1), rtol=1e-9) == 4 * algebra.dim


def test_resampling_keeps_the_function():
    algebra = CliffordAlgebra((1, 1))
    kernel = CompleteKernel(algebra, 1, 1, 5, radial="smooth").double()
    fine = kernel.resampled(9)
    copy = CompleteKernel(algebra, 1, 1, 9, radial="smooth", n_radial=kernel.n_radial).double()
    copy.load_state_dict(fine.state_dict())
    assert torch.equal(copy(), fine())
    shared = fine().detach()[..., ::2, ::2] * (81 / 25)
    coarse = kernel().detach()
    away = torch.ones(5, 5, dtype=torch.bool)
    away[2, 2] = False
    assert torch.allclose(shared[..., away], coarse[..., away], atol=1e-6)
    with pytest.raises(ValueError, match=r"`resampled` needs `radial` 'smooth'"):
        CompleteKernel(algebra, 1, 1, 5).resampled(9)


@pytest.mark.parametrize("group", ["O", "orthochronous"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_radial_functions_that_fall_between_the_points_are_left_out(size, group):
    algebra = CliffordAlgebra((1, -1))
    kernel = CompleteKernel(algebra, 48, 48, size, group, radial="smooth", n_radial=16).double()
    variance = kernel().detach().view(48, 4, -1).square().sum(2).mean(0)
    assert 0.7 < float(variance.min()) <= float(variance.max()) < 1.4
    (kernel() ** 2).sum().backward()
    assert all(p.grad.isfinite().all() for p in kernel.parameters())


def test_resampling_where_other_radial_functions_are_seen():
    """Functions seen by both lattices keep their values; those that only one of them sees have none on the other."""
    algebra = CliffordAlgebra((1, 1))
    coarse = CompleteKernel(algebra, 2, 1, 3, radial="smooth", n_radial=64).double()
    fine = coarse.resampled(5)
    away = torch.ones(3, 3, dtype=torch.bool)
    away[1, 1] = False
    shared = fine().detach()[..., ::2, ::2] * (25 / 9)
    assert torch.allclose(shared[..., away], coarse().detach()[..., away], atol=1e-6)
    again = fine.resampled(3)().detach()
    assert torch.allclose(again[..., away], coarse().detach()[..., away], atol=1e-6)


def test_refinement_changes_the_operator_to_first_order():
    """The figures of docs/kernels.md: on a smooth field, between a kernel and its refinement, without the origin."""
    algebra, errors = CliffordAlgebra((1, 1)), []
    phase = torch.rand(1, 1, 4, 1, 1, dtype=torch.float64) * 2 * torch.pi
    for size in (5, 9, 17):
        fields = []
        for cells in (2 * (size - 1), 4 * (size - 1)):
            a = 2 * torch.pi * torch.arange(cells, dtype=torch.float64) / cells
            fields.append((a[:, None] + phase).cos() + (a[None] + 2 * phase).sin())
        difference = []
        for _ in range(5):
            kernel = CompleteKernel(algebra, 1, 1, size, radial="smooth", n_radial=4).double()
            torch.nn.init.zeros_(kernel.origin)
            one, two = (
                spectral_convolution(x, k.radial().detach(), algebra, "O", k.kernel_size)
                for x, k in zip(fields, (kernel, kernel.resampled(2 * size - 1)), strict=True)
            )
            difference.append(float((one - two[..., ::2, ::2]).norm() / one.norm()))
        errors.append(sum(difference) / 5)
    assert 0.2 < errors[0] < 0.45
    assert 0.35 < errors[1] / errors[0] < 0.6
    assert 0.4 < errors[2] / errors[1] < 0.6


def test_large_kernels_keep_little_that_depends_on_their_size():
    kernel = CompleteKernel(CliffordAlgebra((1, 1, 1)), 1, 1, 15, radial="smooth")
    assert sum(b.numel() * b.element_size() for b in kernel.buffers()) < 100 * 15**3


@pytest.mark.parametrize("group", ["O", "SO"])
def test_a_kernel_of_one_point_is_the_identities(group):
    algebra = CliffordAlgebra((1, 1, 1))
    kernel = CompleteKernel(algebra, 2, 2, 1, group)
    assert kernel.origin.numel() == (4 if group == "O" else 8) * 4
    assert kernel().shape == (16, 16, 1, 1, 1)
    assert 0 < float(kernel().detach().square().sum()) < 100


def test_targets_of_the_maps_are_their_grades():
    for signature in SIGNATURES:
        algebra = CliffordAlgebra(signature)
        maps = equivariant_maps(algebra, torch.randn(algebra.dim, 1, dtype=torch.float64), "SO")[..., 0]
        grades = torch.tensor(algebra.grades)
        for target, one in zip(map_targets(algebra, "SO"), maps, strict=True):
            assert set(grades[one.abs().amax(1) > 0].tolist()) == {target}


def test_every_parameter_matters():
    for signature in [(1, 1), (1, -1, -1)]:
        kernel = CompleteKernel(CliffordAlgebra(signature), 1, 2, 5).double()
        (kernel() ** 2).sum().backward()
        for parameter in kernel.parameters():
            assert parameter.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, r"`kernel_size` \(=4\) must be odd"),
        ({"group": "U"}, r"`group` \(='U'\) must be one of"),
        ({"group": "orthochronous"}, r"needs one axis of its own sign, time"),
        ({"radial": "bessel"}, r"`radial` \(='bessel'\) must be 'orbit' or 'smooth'"),
        ({"causal": True}, r"`causal` needs `group` 'orthochronous'"),
        ({"n_radial": 3}, r"`n_radial` \(=3\) goes with `radial` 'smooth'"),
        ({"n_radial": 1, "radial": "smooth"}, r"`n_radial` \(=1\) must be at least 2"),
        ({"n_radial": 2.5, "radial": "smooth"}, r"`n_radial` \(=2.5\) must be a whole number, at least 2"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        CompleteKernel(CliffordAlgebra((1, 1)), 1, 1, **{"kernel_size": 5, **options})
