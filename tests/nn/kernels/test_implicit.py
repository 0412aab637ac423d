import itertools

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import ImplicitKernel
from cliffsteer.nn.kernels import create_kernel
from cliffsteer.nn.kernels.lattice import integer_offsets, kernel_points
from cliffsteer.symmetry import lattice_symmetries

SIGNATURES = [s for n in (1, 2, 3) for s in itertools.product((1, -1), repeat=n)] + [(1, -1, -1, -1)]


def at_points(kernel, x):
    """The kernel as a function: evaluate it at any positions x (dim, points)."""
    metric = torch.tensor(kernel.algebra.signature, dtype=x.dtype)
    position, q, size = kernel.position, kernel.q, kernel.kernel_size
    kernel.position, kernel.q = x, (metric[:, None] * x.square()).sum(0)
    k = kernel.multivectors()
    kernel.position, kernel.q = position, q
    assert kernel.kernel_size == size
    o, i, nb = kernel.out_channels, kernel.in_channels, kernel.algebra.n_blades
    weight = kernel.weight.index_select(2, kernel.path) * kernel.sign
    return (k.index_select(2, kernel.left) * weight[..., None]).view(o, i, nb, nb, -1)


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_steerable_under_random_orthogonal_maps(signature, generator):
    """K(gx) = ρ(g) K(x) ρ(g)⁻¹ for the kernel as a function, boosts and generic rotations included."""
    algebra = CliffordAlgebra(signature)
    kernel = ImplicitKernel(algebra, 2, 2, 3, hidden_channels=3, layers=2).double()
    x = torch.randn(algebra.dim, 5, generator=generator, dtype=torch.float64)
    for _ in range(3):
        g = algebra.random_orthogonal(generator)
        rho = algebra.outermorphism(g)
        expected = torch.einsum("ab,oibcp,cd->oiadp", rho, at_points(kernel, x), torch.linalg.inv(rho))
        error = (at_points(kernel, g @ x) - expected).norm() / expected.norm()
        assert error < 1e-10


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_sampled_kernel_is_steerable_under_the_lattice(signature):
    algebra = CliffordAlgebra(signature)
    size = 3 if algebra.dim == 4 else 5
    kernel = ImplicitKernel(algebra, 2, 1, size, hidden_channels=3, layers=2).double()
    with torch.no_grad():
        nb = algebra.n_blades
        k = kernel().view(1, nb, 2, nb, *[size] * algebra.dim)
    for g in itertools.islice(lattice_symmetries(algebra), 0, None, 7 if algebra.dim == 4 else 1):
        rho = algebra.outermorphism(g.matrix)
        turned = torch.einsum("ab,obic...,dc->oaid...", rho, g.move(k), rho)
        assert (turned - k).norm() <= 1e-13 * k.norm()


@pytest.mark.parametrize("size", [3, 7, 11])
def test_q_is_exact_on_orbits_and_the_light_cone(size):
    algebra = CliffordAlgebra((1, -1, -1))
    offsets = integer_offsets(3, size)
    _, q = kernel_points(algebra, size)
    exact = offsets[:, 0] ** 2 - offsets[:, 1] ** 2 - offsets[:, 2] ** 2
    assert torch.equal(q == 0, exact == 0)
    assert len(q.unique()) == len(exact.unique())


@pytest.mark.parametrize("signature", [(1, 1), (1, -1, -1)], ids=str)
def test_calibrated_gain_keeps_the_variance_of_white_input(signature):
    algebra = CliffordAlgebra(signature)
    kernel = ImplicitKernel(algebra, 8, 8, 5)
    assert float(kernel().detach().square().flatten(1).sum(1).mean()) == pytest.approx(1, rel=1e-4)
    assert ImplicitKernel(algebra, 8, 8, 5, gain="reference").gain == pytest.approx(20 / 5 ** (algebra.dim - 1))


def test_every_option_changes_the_kernel():
    algebra = CliffordAlgebra((1, 1))

    def kernel(**options):
        torch.manual_seed(0)
        return ImplicitKernel(algebra, 2, 2, **{"kernel_size": 5, **options})()

    base = kernel()
    for options in ({"hidden_channels": 5}, {"layers": 2}, {"norm": "reference"}, {"gain": "reference"}):
        assert not torch.allclose(base, kernel(**options))
    assert kernel(kernel_size=4, allow_even=True).shape == (8, 8, 4, 4)


def test_errors():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"`kernel_size` \(=4\) must be odd: an even kernel has no centre.* take 5"):
        ImplicitKernel(algebra, 1, 1, 4)
    with pytest.raises(ValueError, match=r"`kernel_size` \(=0\) must be at least 1"):
        ImplicitKernel(algebra, 1, 1, 0)
    with pytest.raises(ValueError, match=r"`layers` \(=0\)"):
        ImplicitKernel(algebra, 1, 1, 3, layers=0)
    with pytest.raises(ValueError, match=r"`gain` \(='he'\)"):
        ImplicitKernel(algebra, 1, 1, 3, gain="he")
    with pytest.raises(ValueError, match=r"`kernel` \(='explicit'\) must be one of 'implicit'"):
        create_kernel("explicit", algebra, 1, 1, 3)
