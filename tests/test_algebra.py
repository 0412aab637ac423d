import copy
import itertools
import pickle
import subprocess
import sys

import pytest
import torch

from cliffsteer import CliffordAlgebra

SIGNATURES = [s for n in range(1, 5) for s in itertools.product((1, -1), repeat=n)]
each_signature = pytest.mark.parametrize("signature", SIGNATURES, ids=str)


def random(algebra, *shape, generator=None):
    return torch.randn(*shape, algebra.n_blades, dtype=torch.float64, generator=generator)


def dense_product(algebra, a, b):
    return torch.einsum("...i,ijk,...k->...j", a, algebra.cayley, b)


@pytest.mark.parametrize("signature", [*SIGNATURES[:14:2], (1, -1, -1, -1)], ids=str)  # its compiler is slow
def test_product_is_the_clifford_packages(signature):
    clifford = pytest.importorskip("clifford")
    algebra = CliffordAlgebra(signature)
    layout = clifford.Layout(list(signature))
    a, b = random(algebra, 2).unbind(0)
    product = (layout.MultiVector(a.numpy()) * layout.MultiVector(b.numpy())).value
    assert torch.allclose(algebra.geometric_product(a, b), torch.from_numpy(product), atol=1e-13)
    wedge = (layout.MultiVector(a.numpy()) ^ layout.MultiVector(b.numpy())).value
    assert torch.allclose(algebra.wedge(a, b), torch.from_numpy(wedge), atol=1e-13)
    contraction = layout.MultiVector(a.numpy()).lc(layout.MultiVector(b.numpy())).value
    assert torch.allclose(algebra.left_contraction(a, b), torch.from_numpy(contraction), atol=1e-13)
    assert torch.allclose(algebra.reverse(a), torch.from_numpy((~layout.MultiVector(a.numpy())).value), atol=1e-13)
    assert ["" if n == "1" else n for n in algebra.blade_names] == layout.names


@each_signature
def test_axioms(signature):
    algebra = CliffordAlgebra(signature)
    for sign, e in zip(signature, algebra.basis_vectors(torch.float64), strict=True):
        assert algebra.geometric_product(e, e)[0] == sign
    a, b, c = random(algebra, 3).unbind(0)
    gp = algebra.geometric_product
    assert torch.allclose(gp(gp(a, b), c), gp(a, gp(b, c)), atol=1e-10)
    assert torch.allclose(algebra.reverse(gp(a, b)), gp(algebra.reverse(b), algebra.reverse(a)), atol=1e-12)
    assert torch.allclose(algebra.involute(gp(a, b)), gp(algebra.involute(a), algebra.involute(b)), atol=1e-12)
    assert torch.allclose(algebra.conjugate(a), algebra.reverse(algebra.involute(a)))
    v, w = (algebra.embed(torch.randn(algebra.dim, dtype=torch.float64), 1) for _ in range(2))
    assert torch.allclose(gp(v, w), algebra.wedge(v, w) + algebra.left_contraction(v, w), atol=1e-13)
    assert torch.allclose(
        algebra.right_contraction(a, b),
        algebra.reverse(algebra.left_contraction(algebra.reverse(b), algebra.reverse(a))),
    )
    assert torch.allclose(algebra.scalar_product(a, b)[0], gp(algebra.reverse(a), b)[0])


@each_signature
def test_grades_and_norms(signature):
    algebra = CliffordAlgebra(signature)
    x = random(algebra, 3)
    parts = [algebra.grade(x, k) for k in range(algebra.n_grades)]
    assert torch.equal(sum(parts), x)
    assert torch.equal(algebra.grade(x, (0, algebra.dim)), parts[0] + parts[-1])
    for k, part in enumerate(parts):
        assert torch.equal(algebra.embed(algebra.components(x, k), k), part)
        assert torch.allclose(algebra.quadratic_forms(x)[:, k : k + 1], algebra.quadratic_form(part))
    q = algebra.geometric_product(algebra.reverse(x), x)[:, :1]
    assert torch.allclose(algebra.quadratic_form(x), q, atol=1e-12)
    assert torch.allclose(algebra.norm(x), q.abs().sqrt())


@each_signature
def test_dual_squares_to_a_sign_and_inverts_grades(signature):
    algebra = CliffordAlgebra(signature)
    x = random(algebra, 2)
    for k in range(algebra.n_grades):
        part = algebra.grade(x, k)
        dual = algebra.dual(part)
        assert torch.equal(algebra.grade(dual, algebra.dim - k), dual)
        twice = algebra.dual(dual)
        assert torch.equal(twice, part) or torch.equal(twice, -part)


@each_signature
def test_blade_axis_is_free(signature):
    algebra = CliffordAlgebra(signature)
    a, b = (torch.randn(2, 5, algebra.n_blades, 3, dtype=torch.float64) for _ in range(2))
    last = [t.movedim(2, -1) for t in (a, b)]
    for name in ("geometric_product", "wedge", "left_contraction", "right_contraction", "scalar_product"):
        product = getattr(algebra, name)
        assert torch.equal(product(a, b, axis=2), product(*last).movedim(-1, 2))
        assert torch.equal(product(a, b, axis=-2), product(*last).movedim(-1, 2))
    for name in ("reverse", "involute", "conjugate", "quadratic_form", "quadratic_forms", "norm", "dual"):
        assert torch.equal(getattr(algebra, name)(a, axis=2), getattr(algebra, name)(last[0]).movedim(-1, 2))


@each_signature
def test_broadcasting(signature):
    algebra = CliffordAlgebra(signature)
    a, b = random(algebra, 4, 1), random(algebra, 3)
    assert torch.allclose(algebra.geometric_product(a, b), dense_product(algebra, a.expand(4, 3, -1), b), atol=1e-12)


@each_signature
def test_versor_and_matrix_act_alike_and_keep_the_product(signature, generator):
    algebra = CliffordAlgebra(signature)
    for _ in range(4):
        w = algebra.random_versor(generator)
        g = algebra.versor_matrix(w)
        assert algebra.is_orthogonal(g)
        a, b = (torch.randn(3, algebra.n_blades, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        turned = algebra.apply_matrix(g, a, axis=1)
        scale = turned.abs().max()
        assert torch.allclose(algebra.versor_action(w, a, axis=1), turned, atol=1e-11 * scale)
        product = algebra.apply_matrix(g, algebra.geometric_product(a, b, axis=1), axis=1)
        separately = algebra.geometric_product(turned, algebra.apply_matrix(g, b, axis=1), axis=1)
        assert torch.allclose(product, separately, atol=1e-9 * product.abs().max())
        q = algebra.quadratic_forms(a, axis=1)
        assert torch.allclose(algebra.quadratic_forms(turned, axis=1), q, atol=1e-10 * scale**2)


@each_signature
def test_outermorphism_is_a_homomorphism(signature, generator):
    algebra = CliffordAlgebra(signature)
    g, h = (torch.randn(algebra.dim, algebra.dim, generator=generator, dtype=torch.float64) for _ in range(2))
    rho = algebra.outermorphism
    assert torch.allclose(rho(g @ h), rho(g) @ rho(h), atol=1e-11)
    assert torch.allclose(rho(g)[-1, -1], torch.linalg.det(g))
    batch = rho(torch.stack([g, h]))
    assert torch.equal(batch[1], rho(h))


def test_versors_of_reflections_rotations_and_boosts():
    plane = CliffordAlgebra((1, 1))
    reflection = plane.versor_matrix(plane.versor(torch.tensor([[1.0, 0.0]], dtype=torch.float64)))
    assert torch.allclose(reflection, torch.diag(torch.tensor([-1.0, 1.0], dtype=torch.float64)))
    spacetime = CliffordAlgebra((1, -1))
    eta = 0.7
    boost = torch.tensor([[1.0, 0.0], [torch.cosh(torch.tensor(eta / 2)), torch.sinh(torch.tensor(eta / 2))]])
    g = spacetime.versor_matrix(spacetime.versor(boost.double()))
    assert torch.allclose(g[0, 0], torch.cosh(torch.tensor(eta)).double())
    assert torch.linalg.det(g) == pytest.approx(1)


def test_instances_compare_copy_and_pickle():
    algebra = CliffordAlgebra([1, -1, -1])
    assert algebra == CliffordAlgebra((1, -1, -1))
    assert algebra != CliffordAlgebra((1, 1, -1))
    assert hash(algebra) == hash(CliffordAlgebra((1, -1, -1)))
    assert copy.deepcopy(algebra) == algebra == pickle.loads(pickle.dumps(algebra))
    assert repr(algebra) == "CliffordAlgebra((1, -1, -1))"
    assert algebra.blade_names == ("1", "e1", "e2", "e3", "e12", "e13", "e23", "e123")
    assert not algebra.is_definite
    assert CliffordAlgebra((-1, -1)).is_definite


@pytest.mark.parametrize("signature", [(), (1, 0), (1, 2), (1,) * 5])
def test_bad_signature(signature):
    with pytest.raises(ValueError, match=r"`signature` \(=.*\) must hold one to 4 signs"):
        CliffordAlgebra(signature)


def test_errors_name_the_argument():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"`a` has shape \(3,\): axis -1 is the blade axis .* length 4"):
        algebra.geometric_product(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"`grade` \(=3\) must be in 0..2"):
        algebra.grade(torch.zeros(4), 3)
    with pytest.raises(ValueError, match=r"`x` has 3 components on axis -1, but grade 1 .* has 2"):
        algebra.embed(torch.zeros(3), 1)
    with pytest.raises(ValueError, match=r"`vectors` holds a null vector"):
        CliffordAlgebra((1, -1)).versor(torch.tensor([[1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"`vectors` holds a null vector"):
        CliffordAlgebra((1, 1, -1)).versor(torch.tensor([[3 / 7, 4 / 7, 5 / 7]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"`vectors` has shape \(1, 3\), expected \(..., m, 2\)"):
        algebra.versor(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"`matrix` has shape \(3, 3\), expected \(..., 2, 2\)"):
        algebra.outermorphism(torch.eye(3))


def test_the_first_product_leaves_torchs_threads_alone():
    """The package behind the table compiles with numba, which sets the number of threads for torch too."""
    code = (
        "import torch; torch.set_num_threads(1); from cliffsteer import CliffordAlgebra;"
        "CliffordAlgebra((1, 1)).cayley; print(torch.get_num_threads())"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1"
