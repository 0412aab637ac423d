"""The lattice symmetries and translations that layers are tried with: their names, and why a grid lacks some."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.grid import Grid
from cliffsteer.nn.kernels.basis import time_axis
from cliffsteer.symmetry import SignedPermutation, lattice_symmetries

CHOICES = ("auto", "all", "generators")
_FEW = 16  # "auto" takes all elements where they are no more, identity included: in the plane and in R^{1,2}


@dataclass(frozen=True)
class Element:
    """A symmetry of the lattice: a signed permutation of the axes, or the translation by one cell along an axis.

    Args:
        action: the permutation, or the axis of the translation.
        missing: why the grid does not have it, a phrase; None when it has.
        fits: whether it maps fields on the grid to fields on a grid of the same shape.
    """

    action: SignedPermutation | int
    missing: str | None = None
    fits: bool = True

    @property
    def is_translation(self) -> bool:
        """Whether it moves the grid by a cell, and turns nothing."""
        return not isinstance(self.action, SignedPermutation)

    @property
    def name(self) -> str:
        """What it does, e.g. "e1→e2, e2→−e1" or "shift x1"."""
        if not isinstance(self.action, SignedPermutation):
            return f"shift x{self.action + 1}"
        images = enumerate(zip(self.action.axes, self.action.signs, strict=True))
        moved = [
            f"e{i + 1}→{'−' if sign < 0 else ''}e{axis + 1}" for i, (axis, sign) in images if (i, 1) != (axis, sign)
        ]
        return ", ".join(moved) or "identity"

    def act(self, algebra: CliffordAlgebra, x: Tensor) -> Tensor:
        """Act on a field of multivectors with its blades on axis 2; translations go around the grid."""
        if isinstance(self.action, SignedPermutation):
            return self.action.act(algebra, x)
        return x.roll(1, x.ndim - algebra.dim + self.action)

    def turn(self, algebra: CliffordAlgebra, packed: Tensor) -> Tensor:
        """Act on packed parameters (batch, blade)."""
        if isinstance(self.action, SignedPermutation) and packed.shape[-1]:
            return self.action.turn(algebra, packed)
        return packed

    def is_in(self, algebra: CliffordAlgebra, group: str) -> bool:
        """Whether it belongs to the group of a kernel: "O", "SO" or "orthochronous"."""
        if not isinstance(self.action, SignedPermutation):
            return True
        match group:
            case "SO":
                return bool(self.action.matrix.det() > 0)
            case "orthochronous":
                return self.action.signs[time_axis(algebra)] > 0
        return True


def grid_elements(algebra: CliffordAlgebra, grid: Grid, which: str = "auto") -> list[Element]:
    """The lattice symmetries that keep the metric, those of the grid first, then translations; without the identity.

    Args:
        algebra: the algebra.
        grid: says which of them are its own.
        which: "all"; "generators" of them, reflections of one axis and swaps of two; or "auto", all where they are few.

    Raises:
        ValueError: another choice.
    """
    if which not in CHOICES:
        raise ValueError(f"`elements` (={which!r}) must be one of {', '.join(map(repr, CHOICES))}.")
    actions = list(lattice_symmetries(algebra))
    if which == "generators" or (which == "auto" and len(actions) > _FEW):
        actions = [g for g in actions if _is_generator(g)]
    symmetries = [
        Element(g, _missing(grid, g), all(grid.shape[i] == grid.shape[axis] for i, axis in enumerate(g.axes)))
        for g in actions
        if not _is_identity(g)
    ]
    translations = [
        Element(axis, None if sides[0] == "periodic" else f"axis {axis + 1} has walls")
        for axis, sides in enumerate(grid.boundary)
    ]
    return sorted(symmetries, key=lambda element: element.missing is not None) + translations


def _is_identity(g: SignedPermutation) -> bool:
    return g.axes == tuple(range(len(g.axes))) and min(g.signs) > 0


def _is_generator(g: SignedPermutation) -> bool:
    """Reflections of one axis, and swaps of two without a reflection, which generate all the others."""
    moved = sum(i != axis for i, axis in enumerate(g.axes))
    return (moved, g.signs.count(-1)) in ((0, 1), (2, 0))


def _missing(grid: Grid, g: SignedPermutation) -> str | None:
    """The first difference of two sides that the map exchanges, a phrase."""
    for i, axis in enumerate(g.axes):
        for name in ("shape", "spacing", "unit", "boundary"):
            values = getattr(grid, name)
            if values[i] != values[axis]:
                word = "length" if name == "shape" else name
                return f"axes {min(i, axis) + 1} and {max(i, axis) + 1} differ in {word}"
    for sign, axis in zip(g.signs, g.axes, strict=True):
        if sign < 0 and len(set(grid.boundary[axis])) > 1:
            return f"the two sides of axis {axis + 1} differ"
    return None
