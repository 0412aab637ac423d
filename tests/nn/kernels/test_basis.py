"""The analytic basis is complete: its span is the null space of the steerability constraint, found by brute force."""

import itertools

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn.kernels.basis import equivariant_maps, kernel_basis, time_axis

SIGNATURES = [s for n in range(1, 5) for s in itertools.product((1, -1), repeat=n)]
each_signature = pytest.mark.parametrize("signature", SIGNATURES, ids=str)


def metric_of(algebra):
    return torch.diag(torch.tensor(algebra.signature, dtype=torch.float64))


def stabiliser(algebra, x):
    """Generators of the stabiliser of x in O(p, q): its Lie algebra and, for non-null x, reflections that fix x."""
    n, metric = algebra.dim, metric_of(algebra)
    planes = []
    for i, j in itertools.combinations(range(n), 2):
        a = torch.zeros(n, n, dtype=torch.float64)
        a[i, j], a[j, i] = 1, -1
        planes.append(a @ metric)  # ηA is antisymmetric: A generates an isometry
    if planes:
        stacked = torch.stack(planes)
        _, s, v = torch.linalg.svd((stacked @ x).T, full_matrices=True)
        rank = int((s > 1e-10).sum())
        algebra_elements = torch.einsum("ij,jab->iab", v[rank:], stacked)
    else:
        algebra_elements = torch.zeros(0, n, n, dtype=torch.float64)
    reflections = []
    _, _, v = torch.linalg.svd((metric @ x)[None], full_matrices=True)
    orthogonal = v[1:]  # y with y · x = 0
    for y in itertools.chain(orthogonal, orthogonal.sum(0, keepdim=True) if len(orthogonal) else ()):
        q = y @ metric @ y
        if abs(q) > 1e-6:
            reflections.append(torch.eye(n, dtype=torch.float64) - 2 * torch.outer(y, metric @ y) / q)
    return algebra_elements, reflections


def derivation(algebra, a):
    """The action of a Lie algebra element on multivectors, d/ds ρ(1 + s a) at 0.

    Minors are polynomials in s of degree <= 4, for which this difference formula is exact.
    """
    rho = [algebra.outermorphism(torch.eye(algebra.dim, dtype=torch.float64) + s * a) for s in (1, -1, 2, -2)]
    return (8 * (rho[0] - rho[1]) - (rho[2] - rho[3])) / 12


def null_space(algebra, x):
    """All linear maps Cl -> Cl that commute with the stabiliser of x, as orthonormal rows."""
    nb = algebra.n_blades
    eye = torch.eye(nb, dtype=torch.float64)
    generators, reflections = stabiliser(algebra, x)
    actions = [derivation(algebra, a) for a in generators] + [algebra.outermorphism(r) for r in reflections]
    gram = torch.zeros(nb * nb, nb * nb, dtype=torch.float64)
    for action in actions:
        constraint = torch.kron(action, eye) - torch.kron(eye, action.T.contiguous())
        gram += constraint.T @ constraint
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, values < 1e-9 * max(1.0, float(values[-1]))].T


def span_distance(rows, space):
    """How far unit rows stick out of an orthonormal space."""
    rows = rows / rows.norm(dim=1, keepdim=True)
    return float((rows - rows @ space.T @ space).norm(dim=1).max())


def random_position(algebra, kind, generator):
    metric = metric_of(algebra)
    for _ in range(1000):
        x = torch.randn(algebra.dim, generator=generator, dtype=torch.float64)
        q = float(x @ metric @ x)
        if q * kind > 0.2 * float(x @ x):
            return x / abs(q) ** 0.5
    return None


@each_signature
@pytest.mark.parametrize("kind", [1, -1], ids=["q > 0", "q < 0"])
def test_the_basis_is_the_null_space_of_the_constraint(signature, kind, generator):
    algebra = CliffordAlgebra(signature)
    if kind not in signature:
        return  # a definite metric has vectors of one sign only
    for _ in range(1 if algebra.dim == 4 else 3):
        x = random_position(algebra, kind, generator)
        space = null_space(algebra, x)
        maps = equivariant_maps(algebra, x[:, None])[..., 0].flatten(1)
        assert len(space) == len(maps) == 4 * algebra.dim
        assert torch.linalg.matrix_rank(maps) == 4 * algebra.dim
        assert span_distance(maps, space) < 1e-9


@pytest.mark.parametrize(("signature", "dimension"), [((1, -1, -1), 12), ((-1, 1, 1), 12), ((1, -1), 16)], ids=str)
def test_on_the_light_cone(signature, dimension):
    """R^{1,2}: the same 4n. R^{1,1}: a null vector has a trivial stabiliser, all 16 maps are allowed at the point."""
    algebra = CliffordAlgebra(signature)
    x = torch.tensor([1.0, 0.6, 0.8][: algebra.dim], dtype=torch.float64)
    if algebra.dim == 2:
        x[1] = 1
    space = null_space(algebra, x)
    maps = equivariant_maps(algebra, x[:, None])[..., 0].flatten(1)
    assert len(space) == dimension
    assert torch.linalg.matrix_rank(maps) == 4 * algebra.dim
    assert span_distance(maps, space) < 1e-9


@each_signature
def test_at_the_origin_only_the_identities_are_left(signature):
    algebra = CliffordAlgebra(signature)
    maps = equivariant_maps(algebra, torch.zeros(algebra.dim, 1, dtype=torch.float64))[..., 0].flatten(1)
    assert int((maps.norm(dim=1) > 0).sum()) == algebra.dim + 1


@each_signature
def test_so_has_twice_as_many_maps_and_they_commute_with_rotations(signature, generator):
    algebra = CliffordAlgebra(signature)
    x = random_position(algebra, signature[0], generator)
    maps = equivariant_maps(algebra, x[:, None], "SO")
    assert len(maps) == 8 * algebra.dim
    if algebra.dim > 1:
        assert torch.linalg.matrix_rank(maps.flatten(1)) == 8 * algebra.dim
    g = algebra.versor_matrix(algebra.random_versor(generator, count=2))
    rho = algebra.outermorphism(g)
    turned = rho @ maps[..., 0] @ torch.linalg.inv(rho)
    assert torch.allclose(equivariant_maps(algebra, (g @ x)[:, None], "SO")[..., 0], turned, atol=1e-9)


@each_signature
def test_maps_are_orthogonal_to_each_other(signature):
    algebra = CliffordAlgebra(signature)
    maps = equivariant_maps(algebra, torch.randn(algebra.dim, 1, dtype=torch.float64))[..., 0].flatten(1)
    gram = maps @ maps.T
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-12 * float(gram.max()))


@pytest.mark.parametrize(
    ("signature", "size", "group", "orbits"),
    [
        ((1, 1), 7, "O", 10),
        ((1, 1, 1), 7, "O", 19),
        ((1, -1), 3, "O", 4),  # origin, light cone, timelike, spacelike
        ((1, -1), 3, "orthochronous", 6),
    ],
    ids=str,
)
def test_orbits(signature, size, group, orbits):
    basis = kernel_basis(CliffordAlgebra(signature), size, group)
    assert basis.n_orbits == orbits
    assert int(basis.counts.sum()) == size ** len(signature)
    assert basis.counts[0] == 1
    assert not basis.offsets[basis.orbit == 0].any()


def test_time_axis():
    assert [time_axis(CliffordAlgebra(s)) for s in [(1, -1, -1), (1, 1, -1), (1, -1), (-1, 1, 1, 1)]] == [0, 2, 0, 0]
    for signature in [(1, 1), (1,), (1, 1, -1, -1)]:
        with pytest.raises(ValueError, match=r"needs one axis of its own sign, time"):
            time_axis(CliffordAlgebra(signature))
    with pytest.raises(ValueError, match=r"`group` \(='U'\) must be one of 'O', 'SO', 'orthochronous'"):
        kernel_basis(CliffordAlgebra((1, 1)), 3, "U")
