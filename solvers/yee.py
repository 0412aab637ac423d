"""Yee grid: each component of a multivector field at its own place in the cell, so that derivatives are exact circuits.

The component on blade A sits at the centres of cells along the axes in A and on their nodes (corners) along the others:
scalars on nodes, vectors on edges, bivectors on faces, trivectors at the centres of three-dimensional cells. From
there, differences of neighbours give

    (∇∧F)_A = Σ_p (−1)^p ∂_{A_p} F_{A without A_p}            exterior derivative, grade k to k + 1
    (∇·F)_A = Σ_i ± ∂_i F_{A with i}                          divergence, grade k to k − 1, (∇·B)_i = Σ_j ∂_j B_ij

at the places of their own blades, to second order, and ∇∧∇∧F = 0 and ∇·∇·F = 0 to rounding. The two are adjoint up to a
sign. Between perfect conductors nodes on the walls are left out: what lives there, tangential E and normal B, is zero.

Source: Yee, "Numerical solution of initial boundary value problems involving Maxwell's equations in isotropic media"
(1966).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from cliffsteer.grid import Grid

Blade = tuple[int, ...]
PART = 2**16
"""Cells to work on at a time: the six components of so many, 3 MiB in float64, about fit a processor's cache."""


class YeeGrid:
    """Derivatives, averages and their inverse on a grid whose axes are periodic or between perfect conductors.

    A field of grade k is a list of one tensor (batch, *shape) per blade of the grade, in the order of the algebra. An
    axis of n cells has n centres and, periodic, n nodes (the lower one of each cell), between conductors n − 1.

    Args:
        grid: the cell-centred grid.

    Attributes:
        grid: the same.
        periodic: whether it is, for each axis.

    Raises:
        ValueError: an axis that is neither periodic nor between two conductors.
    """

    def __init__(self, grid: Grid):
        for axis, sides in enumerate(grid.boundary):
            if sides not in (("periodic", "periodic"), ("conductor", "conductor")):
                raise ValueError(
                    f"`boundary` on axis {axis} (={sides}) must be 'periodic' or 'conductor' on both sides."
                )
        self.grid = grid
        self.periodic = tuple(sides[0] == "periodic" for sides in grid.boundary)

    def blades(self, grade: int) -> list[Blade]:
        """The blades of a grade, each the tuple of its axes."""
        return list(itertools.combinations(range(self.grid.dim), grade))

    def shape(self, blade: Blade) -> tuple[int, ...]:
        """Number of values of a component along each axis."""
        return tuple(
            n if axis in blade or periodic else n - 1
            for axis, (n, periodic) in enumerate(zip(self.grid.shape, self.periodic, strict=True))
        )

    def positions(self, blade: Blade) -> list[Tensor]:
        """Coordinates of a component along each axis, in the unit of the grid."""
        out = []
        for axis, (n, h) in enumerate(zip(self.shape(blade), self.grid.spacing, strict=True)):
            start = 0.5 if axis in blade else 0.0 if self.periodic[axis] else 1.0
            out.append((torch.arange(n, dtype=torch.float64) + start) * h)
        return out

    # ------------------------------------------------------------------------------------------- derivatives

    def add_wedge(self, out: Sequence[Tensor], fields: Sequence[Tensor], grade: int, factor: float = 1.0) -> None:
        """Add factor · ∇∧F, of grade + 1, to ``out`` in place; F has the grade ``grade``."""
        place = {blade: i for i, blade in enumerate(self.blades(grade))}
        circuits = [
            [(place[blade[:p] + blade[p + 1 :]], axis, (-1) ** p) for p, axis in enumerate(blade)]
            for blade in self.blades(grade + 1)
        ]
        self._add(out, fields, circuits, False, factor)

    def add_divergence(
        self,
        out: Sequence[Tensor],
        fields: Sequence[Tensor],
        grade: int,
        factor: float | Tensor = 1.0,
        divisors: Sequence[Tensor] | None = None,
    ) -> None:
        """Add factor · ∇·F / divisor, of grade − 1, to ``out`` in place; F has the grade ``grade``.

        Args:
            out: one tensor per blade of grade − 1.
            fields: F, one tensor per blade.
            grade: of F.
            factor: a number, or one for each trajectory, shape (batch, 1, ...).
            divisors: of the shape of ``out``; default 1.
        """
        place = {blade: i for i, blade in enumerate(self.blades(grade - 1))}
        circuits: list[list[tuple[int, int, int]]] = [[] for _ in place]
        for source, blade in enumerate(self.blades(grade)):
            for p, axis in enumerate(blade):
                circuits[place[blade[:p] + blade[p + 1 :]]].append((source, axis, (-1) ** (p + grade - 1)))
        self._add(out, fields, circuits, True, factor, divisors)

    def zeros(self, grade: int, like: Tensor) -> list[Tensor]:
        """A field of zeros of a grade, with the batch, dtype and device of ``like``."""
        return [like.new_zeros(len(like), *self.shape(blade)) for blade in self.blades(grade)]

    # ---------------------------------------------------------------------------------------- cells and back

    def to_centers(self, fields: Sequence[Tensor], grade: int, block: int = 1) -> Tensor:
        """Averages over what a cell touches (its edges, its faces), shape (batch, component, *grid).

        Args:
            fields: one tensor per blade.
            grade: their grade.
            block: average over blocks of so many cells a side as well.
        """
        return torch.stack(
            [average_blocks(self._center(f, b), block) for f, b in zip(fields, self.blades(grade), strict=True)], 1
        )

    def to_edges(self, cells: Tensor) -> list[Tensor]:
        """For each edge the mean of the cells (batch, *grid) around it; on walls there are no edges to ask for."""
        out = []
        for blade in self.blades(1):
            mean = cells
            for axis in set(range(self.grid.dim)) - set(blade):
                mean = _mean_to_nodes(mean, axis + 1, self.periodic[axis])
            out.append(mean)
        return out

    def from_centers(self, values: Tensor, grade: int, block: int = 1) -> list[Tensor]:
        """The smoothest field with these averages, the inverse of ``to_centers`` as far as there is one.

        Along each axis the field is a sum of as many of the longest waves as there are values; of waves that the
        averages cannot show (the checkerboard of an even periodic axis) it has none.

        Args:
            values: shape (batch, component, *grid), the grid coarsened by ``block``.
            grade: of the field.
            block: as in ``to_centers``.
        """
        out = []
        for component, blade in zip(values.unbind(1), self.blades(grade), strict=True):
            field = component
            for axis, (n, periodic) in enumerate(zip(self.grid.shape, self.periodic, strict=True)):
                matrix = _reconstruction(n, block, periodic, axis in blade, str(values.device))
                if matrix is not None:
                    field = torch.tensordot(field, matrix, ([axis + 1], [1])).movedim(-1, axis + 1)
            out.append(field.contiguous())
        return out

    # ----------------------------------------------------------------------------------------------- private

    def _center(self, x: Tensor, blade: Blade) -> Tensor:
        for axis in set(range(self.grid.dim)) - set(blade):
            x = _mean_to_centers(x, axis + 1, self.periodic[axis])
        return x

    def _add(
        self,
        out: Sequence[Tensor],
        fields: Sequence[Tensor],
        circuits: Sequence[Sequence[tuple[int, int, int]]],
        to_nodes: bool,
        factor: float | Tensor,
        divisors: Sequence[Tensor] | None = None,
    ) -> None:
        """Add to each tensor of ``out`` the differences of its circuit, (field, axis, sign), a few planes at a time."""
        learned = isinstance(factor, Tensor) and factor.requires_grad
        if isinstance(factor, Tensor) and not learned and bool((factor == factor[:1]).all()):
            factor = float(factor[0]) if len(factor) else 1.0
        direct = divisors is None and not isinstance(factor, Tensor)
        for rows, planes in self._parts(len(out[0])):
            values = [_cut(field, 0, rows) for field in fields]
            for i, circuit in enumerate(circuits):
                target = _cut(_cut(out[i], 0, rows), 1, planes)
                sums = target if direct else torch.zeros_like(target)
                for source, axis, sign in circuit:
                    weight = sign * factor if direct else sign
                    self._add_difference(sums, values[source], axis, weight, to_nodes, planes.start)
                if direct:
                    continue
                sums.mul_(_cut(factor, 0, rows) if isinstance(factor, Tensor) else factor)
                if divisors is None:
                    target.add_(sums)
                else:
                    target.addcdiv_(sums, _cut(_cut(divisors[i], 0, rows), 1, planes))

    def _parts(self, batch: int) -> Iterator[tuple[range, range]]:
        """Trajectories and planes across the first axis, so few at a time that all fields of them stay in the cache."""
        planes, cells = self.grid.shape[0], math.prod(self.grid.shape)
        rows, thickness = max(1, PART // cells), max(1, min(planes, PART * planes // cells))
        for row in range(0, batch, rows):
            for first in range(0, planes, thickness):
                yield range(row, row + rows), range(first, first + thickness)

    def _add_difference(self, out: Tensor, x: Tensor, axis: int, factor: float, to_nodes: bool, first: int) -> None:
        """Add factor · ∂x between nodes and centres of one axis; ``out`` begins with plane ``first`` of the whole."""
        n, factor = self.grid.shape[axis], factor / self.grid.spacing[axis]
        planes = out.shape[1]
        for start, source, length, sign in _neighbours(n, self.periodic[axis], to_nodes):
            if axis:
                target = _cut(out, axis + 1, range(start, start + length))
                values = _cut(_cut(x, 1, range(first, first + planes)), axis + 1, range(source, source + length))
            else:
                low, high = max(start, first), min(start + length, first + planes)
                if low >= high:
                    continue
                target = _cut(out, 1, range(low - first, high - first))
                values = _cut(x, 1, range(source + low - start, source + high - start))
            target.add_(values, alpha=sign * factor)


def _cut(x: Tensor, axis: int, part: range) -> Tensor:
    """The entries of a tensor in this part of an axis; the tensor itself where that is all of them."""
    length = x.shape[axis]
    if part.start <= 0 and part.stop >= length:
        return x
    return x.narrow(axis, part.start, min(part.stop, length) - part.start)


@lru_cache(maxsize=64)
def _neighbours(n: int, periodic: bool, to_nodes: bool) -> tuple[tuple[int, int, int, float], ...]:
    """Which entries to add up for differences: (first of the result, first of the values, how many, sign)."""
    if periodic:  # node j is the lower one of cell j: a node takes x_j − x_{j−1}, a centre x_{j+1} − x_j
        if to_nodes:
            return (0, 0, n, 1.0), (1, 0, n - 1, -1.0), (0, n - 1, 1, -1.0)
        return (0, 0, n, -1.0), (0, 1, n - 1, 1.0), (n - 1, 0, 1, 1.0)
    if to_nodes:  # n centres, n − 1 nodes
        return (0, 1, n - 1, 1.0), (0, 0, n - 1, -1.0)
    return (0, 0, n - 1, 1.0), (1, 0, n - 1, -1.0)


def average_blocks(cells: Tensor, block: int) -> Tensor:
    """Means over blocks of ``block`` cells a side, (batch, *grid) to the coarser grid."""
    for axis in range(1, cells.ndim) if block > 1 else ():
        cells = cells.unflatten(axis, (-1, block)).mean(axis + 1)
    return cells


def _mean_to_centers(x: Tensor, axis: int, periodic: bool) -> Tensor:
    """Means of the two nodes of each cell, those on walls zero."""
    n = x.shape[axis]
    if periodic:
        out = x / 2
        out.narrow(axis, 0, n - 1).add_(x.narrow(axis, 1, n - 1), alpha=0.5)
        out.narrow(axis, n - 1, 1).add_(x.narrow(axis, 0, 1), alpha=0.5)
        return out
    out = x.new_zeros([n + 1 if i == axis else length for i, length in enumerate(x.shape)])
    out.narrow(axis, 0, n).add_(x, alpha=0.5)
    out.narrow(axis, 1, n).add_(x, alpha=0.5)
    return out


def _mean_to_nodes(x: Tensor, axis: int, periodic: bool) -> Tensor:
    if periodic:
        return (x + x.roll(1, axis)) / 2
    n = x.shape[axis] - 1
    return (x.narrow(axis, 0, n) + x.narrow(axis, 1, n)) / 2


@lru_cache(maxsize=32)
def _reconstruction(n: int, block: int, periodic: bool, centered: bool, device: str) -> Tensor | None:
    """The inverse of averaging along one axis, shape (place, n / block); None for the identity."""
    if centered and block == 1:
        return None
    coarse = n // block
    k = torch.arange(coarse + 1, dtype=torch.float64)
    x = torch.arange(n, dtype=torch.float64)[:, None] + (0.5 if centered else 0.0)
    if periodic:  # sine and cosine of each wave up to the shortest that the coarse grid can show
        phase = 2 * math.pi / n * x * k[: coarse // 2 + 1]
        waves = torch.cat([torch.cos(phase), torch.sin(phase)], 1)
    else:  # even about the walls along the axes of a blade, else zero on them
        phase = math.pi / n * x * k
        waves = torch.cos(phase)[:, :coarse] if centered else torch.sin(phase)[1:, 1:]
    shown = waves if centered else _mean_to_centers(waves, 0, periodic)
    shown = shown.unflatten(0, (coarse, block)).mean(1)
    return (waves @ torch.linalg.pinv(shown, rtol=1e-6)).to(device)
