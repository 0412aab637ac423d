import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.symmetry import lattice_symmetries


@pytest.mark.parametrize(
    ("signature", "order"), [((1,), 2), ((1, 1), 8), ((1, 1, 1), 48), ((1, -1, -1), 16), ((1, -1, -1, -1), 96)], ids=str
)
def test_group_orders_and_orthogonality(signature, order):
    algebra = CliffordAlgebra(signature)
    elements = list(lattice_symmetries(algebra))
    assert len(set(elements)) == order
    assert all(algebra.is_orthogonal(g.matrix) for g in elements)
    assert torch.equal(elements[0].matrix, torch.eye(algebra.dim, dtype=torch.float64))


def test_a_grid_keeps_only_its_own_symmetries():
    algebra = CliffordAlgebra((1, 1))
    assert len(list(lattice_symmetries(algebra, Grid((8, 8))))) == 8
    assert len(list(lattice_symmetries(algebra, Grid((8, 4))))) == 4
    assert len(list(lattice_symmetries(algebra, Grid((8, 8), (1.0, 0.5))))) == 4
    assert len(list(lattice_symmetries(algebra, Grid((8, 8), 1.0, ("slip", ("slip", "open")))))) == 2
    assert len(list(lattice_symmetries(algebra, Grid((8, 8), unit=("m", "s"))))) == 4
    with pytest.raises(ValueError, match=r"`grid` has 3 axes, shape \(8, 8, 8\), but .* needs 2"):
        lattice_symmetries(algebra, Grid((8, 8, 8)))


@pytest.mark.parametrize("signature", [(1, 1), (1, -1, -1)], ids=str)
def test_action_is_a_homomorphism_and_agrees_with_matrices(signature):
    algebra = CliffordAlgebra(signature)
    elements = {tuple(g.matrix.flatten().tolist()): g for g in lattice_symmetries(algebra)}
    x = torch.randn(2, 3, algebra.n_blades, *[4] * algebra.dim, dtype=torch.float64)
    for g in elements.values():
        assert torch.allclose(g.turn(algebra, x, 2), algebra.apply_matrix(g.matrix, x, axis=2))
        for h in list(elements.values())[:4]:
            gh = elements[tuple((g.matrix @ h.matrix).flatten().tolist())]
            assert torch.equal(g.act(algebra, h.act(algebra, x)), gh.act(algebra, x))


def test_move_takes_the_value_at_x_to_gx():
    algebra = CliffordAlgebra((1, 1))
    for g in lattice_symmetries(algebra):
        centred = Grid((5, 5)).coordinates() - 2.5
        moved = g.move(centred)  # (Rf)(y) = f(R⁻¹ y)
        assert torch.equal(moved, torch.einsum("ji,jxy->ixy", g.matrix, centred))
