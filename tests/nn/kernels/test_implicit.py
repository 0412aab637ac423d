import itertools

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CEGNN, GeometricProductLayer, GradeNorm, ImplicitKernel
from cliffsteer.nn.kernels import create_kernel
from cliffsteer.nn.kernels.basis import equivariant_maps
from cliffsteer.nn.kernels.implicit import scalar_shell
from cliffsteer.nn.kernels.subalgebra import PATHS
from cliffsteer.symmetry import lattice_symmetries

SIGNATURES = [s for n in (1, 2, 3) for s in itertools.product((1, -1), repeat=n)] + [(1, -1, -1, -1)]


def at_points(kernel, x):
    """The kernel as a function: evaluate it at any positions x (dim, points)."""
    metric = torch.tensor(kernel.algebra.signature, dtype=x.dtype)
    kernel.rounded_q = (metric[:, None] * x.square()).sum(0)  # every point its own orbit
    return torch.einsum("bpoi,blmp->oilmp", kernel.radial(), equivariant_maps(kernel.algebra, x))


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


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
@pytest.mark.parametrize("norm", ["smooth", "reference"])
def test_agrees_with_the_network_on_all_blades_at_all_points(signature, norm):
    """The evaluation in span{1, x}, once per orbit, is that of the general network at every point."""
    algebra = CliffordAlgebra(signature)
    kernel = ImplicitKernel(algebra, 2, 2, 3, hidden_channels=3, layers=3, norm=norm, gain="reference").double()
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network = CEGNN(algebra, 1, 4, 3, 3, norm).double()  # weights beyond span{1, x} stay random
    live = [algebra.paths.index(path) for path in PATHS]
    products = [layer for layer in network if isinstance(layer, GeometricProductLayer)]
    norms = [layer for layer in network if isinstance(layer, GradeNorm)]
    with torch.no_grad():
        for full, small in zip(products, kernel.network.products, strict=True):
            full.product.weight[..., live] = small.weight
            full.right.weight[..., :2] = small.right.weight
            full.linear.weight[..., :2] = small.linear.weight
            full.linear.bias.copy_(small.linear.bias)
            full.norm.factor[..., :2] = small.norm.factor
        for full, small in zip(norms, kernel.network.norms, strict=True):
            full.factor[..., :2] = small.factor
    q = kernel.q[kernel.orbit]
    inputs = torch.zeros(1, 1, algebra.n_blades, len(q), dtype=torch.float64)
    inputs[0, 0, 0] = scalar_shell(q, kernel.position_width).detach()
    inputs[0, 0, 1 : algebra.dim + 1] = kernel.basis.offsets.T.double()
    k = network(inputs)[0].unflatten(0, (2, 2)) * kernel.factor
    grade = torch.tensor(algebra.grades)
    shell = scalar_shell(q, kernel.shell_width.unsqueeze(-1))[:, :, grade.clamp(max=1)]
    assert k[:, :, grade > 1].norm() <= 1e-12 * k.norm()
    n = algebra.dim
    expected = torch.zeros(2, algebra.n_blades, 2, algebra.n_blades, len(q), dtype=torch.float64)
    for (left, out, right), weight in head_weights(n, kernel.weight):
        blades = torch.einsum(
            "oikp,klm->olimp", algebra.grade(k * shell, left, axis=2), head_table(algebra, out, right)
        )
        expected += weight[:, None, :, None, None] * blades
    assert torch.allclose(kernel().flatten(), expected.flatten(), rtol=1e-12, atol=1e-12)


def head_weights(n, weight):
    paths = [(0, k, k) for k in range(n + 1)] + [(1, k + 1, k) for k in range(n)]
    paths += [(1, k - 1, k) for k in range(1, n + 1)]
    return zip(paths, weight.unbind(-1), strict=True)


def head_table(algebra, out, right):
    grade = torch.tensor(algebra.grades)
    return algebra.cayley * (grade == out)[None, :, None] * (grade == right)[None, None, :]


@pytest.mark.parametrize("size", [3, 7, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_q_is_exact_on_the_light_cone_in_every_precision(size, dtype):
    kernel = ImplicitKernel(CliffordAlgebra((1, -1, -1)), 1, 1, size, 2, 2).to(dtype)
    t, x, y = kernel.basis.offsets.unbind(1)
    exact = t**2 - x**2 - y**2
    q = kernel.q[kernel.orbit]
    assert torch.equal(q == 0, exact == 0)
    assert torch.equal(q.sign().long(), exact.sign())
    assert len(q.unique()) == len(exact.unique())


@pytest.mark.parametrize("signature", [(1, 1), (1, -1, -1)], ids=str)
def test_calibrated_gain_keeps_the_variance_of_white_input(signature):
    algebra = CliffordAlgebra(signature)
    kernel = ImplicitKernel(algebra, 8, 8, 5)
    assert float(kernel().detach().square().flatten(1).sum(1).mean()) == pytest.approx(1, rel=1e-4)


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
