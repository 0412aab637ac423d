"""Elements are named, listed with why the grid lacks them, and act as what they are."""

import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.elements import Element, grid_elements
from cliffsteer.symmetry import SignedPermutation, lattice_symmetries

PLANE = CliffordAlgebra((1, 1))


def missing(grid, algebra=PLANE, which="all"):
    return {g.name: g.missing for g in grid_elements(algebra, grid, which)}


def test_all_symmetries_of_the_square_but_the_identity_and_a_translation_for_each_axis():
    found = grid_elements(PLANE, Grid((8, 8)))
    assert [g.is_translation for g in found] == [False] * 7 + [True] * 2
    assert all(g.missing is None and g.fits for g in found)
    names = [g.name for g in found]
    assert len(set(names)) == 9
    assert {"e1→−e1", "e1→e2, e2→−e1", "shift x1"} <= set(names)


@pytest.mark.parametrize("grid", [Grid((8, 8)), Grid((8, 6)), Grid((8, 8), (1.0, 2.0)), Grid((8, 8), 1.0, "slip")])
def test_what_the_grid_does_not_lack_is_what_it_has(grid):
    own = [g.action for g in grid_elements(PLANE, grid, "all") if g.missing is None and not g.is_translation]
    assert own == list(lattice_symmetries(PLANE, grid))[1:]


@pytest.mark.parametrize(
    ("grid", "name", "reason"),
    [
        (Grid((8, 6)), "e1→e2, e2→e1", "axes 1 and 2 differ in length"),
        (Grid((8, 8), (1.0, 2.0)), "e1→e2, e2→e1", "axes 1 and 2 differ in spacing"),
        (Grid((8, 8), 1.0, ("slip", "periodic")), "e1→e2, e2→e1", "axes 1 and 2 differ in boundary"),
        (Grid((8, 8), 1.0, (("slip", "open"), "periodic")), "e1→−e1", "the two sides of axis 1 differ"),
        (Grid((8, 8), 1.0, ("slip", "periodic")), "shift x1", "axis 1 has walls"),
    ],
)
def test_why_the_grid_lacks_an_element(grid, name, reason):
    assert missing(grid)[name] == reason


def test_an_element_that_changes_the_shape_does_not_fit():
    swap = next(g for g in grid_elements(PLANE, Grid((8, 6))) if g.name == "e1→e2, e2→e1")
    assert not swap.fits
    assert all(g.fits for g in grid_elements(PLANE, Grid((8, 8), (1.0, 2.0))))


def test_generators_are_few_and_generate_all():
    algebra = CliffordAlgebra((1, 1, 1))
    found = [g for g in grid_elements(algebra, Grid((4, 4, 4))) if not g.is_translation]
    assert len(found) == 6
    matrices = {tuple(g.action.matrix.flatten().tolist()) for g in found}
    while True:
        square = [torch.tensor(m, dtype=torch.float64).view(3, 3) for m in matrices]
        products = matrices | {tuple((a @ b).flatten().tolist()) for a in square for b in square}
        if products == matrices:
            break
        matrices = products
    assert len(matrices) == 48
    assert len(grid_elements(algebra, Grid((4, 4, 4)), "all")) == 47 + 3
    assert len(grid_elements(PLANE, Grid((4, 4)), "generators")) == 3 + 2


def test_a_translation_goes_around_the_grid_and_turns_nothing():
    x = torch.randn(1, 2, 4, 5, 6)
    shift = Element(1)
    assert shift.act(PLANE, x)[..., 0].equal(x[..., -1])
    packed = torch.randn(1, 4)
    assert shift.turn(PLANE, packed) is packed


def test_groups():
    algebra = CliffordAlgebra((-1, 1, 1))  # time first
    reversal, mirror = (Element(SignedPermutation((0, 1, 2), signs)) for signs in ((-1, 1, 1), (1, -1, 1)))
    assert [g.is_in(algebra, "O") for g in (reversal, mirror)] == [True, True]
    assert [g.is_in(algebra, "SO") for g in (reversal, mirror)] == [False, False]
    assert [g.is_in(algebra, "orthochronous") for g in (reversal, mirror)] == [False, True]


def test_an_unknown_choice():
    with pytest.raises(ValueError, match=r"`elements` \(='most'\) must be one of 'auto', 'all', 'generators'"):
        grid_elements(PLANE, Grid((4, 4)), "most")
