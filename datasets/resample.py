"""Resampling of frames: to coarser cells, to other periodic grids, and from staggered points to cell centres.

All of these are linear, act on each component alone, and commute with the symmetries of the lattice: resampling turned
frames gives the turned resampled frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid, check_grid_shape

STAGGERINGS = ("faces", "edges")
"""Where component e_A of a field lives: "faces", shifted by half a cell along the axes in A, so that e1 is on the faces
across axis 1 (velocity of a MAC grid); "edges", along the axes that A lacks, so that e1 is on the edges along axis 1
and e12 on the faces that span axes 1 and 2 (electric vector and magnetic bivector of a Yee grid)."""


def block_average(frames: Tensor, grid: Grid, factor: int) -> tuple[Tensor, Grid]:
    """Means over blocks of ``factor`` cells along each axis: what a coarser finite-volume grid would hold.

    Args:
        frames: shape (batch, time, blade, *grid).
        grid: their grid.
        factor: cells of a block along each axis.

    Returns:
        The frames, and their grid, of the same domain.

    Raises:
        ValueError: frames of another grid, or a side that the factor does not divide.

    Example:
        >>> frames, grid = block_average(torch.ones(1, 1, 4, 8, 8), Grid((8, 8)), 2)
        >>> frames.shape, grid.spacing
        (torch.Size([1, 1, 4, 4, 4]), (2.0, 2.0))
    """
    check_grid_shape(frames, grid)
    coarse = grid.coarsened(factor)
    for axis in range(3, frames.ndim):
        frames = frames.unflatten(axis, (-1, factor)).mean(axis + 1)
    return frames, coarse


def spectral_resample(frames: Tensor, grid: Grid, shape: Sequence[int]) -> tuple[Tensor, Grid]:
    """Trigonometric interpolation to another number of cells along periodic axes; exact for waves that both resolve.

        f(x) = Σ_k c_k exp(2πi k·x/L),   |k_i| <= min(n_i, m_i)/2

    taken at the centres of the new cells; shorter waves are left out. Centres of coarse and fine cells differ, so this
    is no subset of the samples. The shortest wave of an even number of cells, (−1)^i, is sin(πn x/L), which is what
    keeps it from choosing between left and right.

    Args:
        frames: shape (batch, time, blade, *grid).
        grid: their grid.
        shape: cells of the new grid along each axis.

    Returns:
        The frames, in their dtype, and their grid, of the same domain.

    Raises:
        ValueError: frames of another grid, not one whole number for each axis, or a new number along an axis that is
            not periodic.
    """
    check_grid_shape(frames, grid)
    cells = tuple(shape) if isinstance(shape, Iterable) else ()
    if len(cells) != grid.dim or any(isinstance(n, bool) or not isinstance(n, Integral) or n < 1 for n in cells):
        raise ValueError(
            f"`shape` (={shape!r}) must hold a positive whole number of cells for each of {grid.dim} axes, as in"
            f" {grid.shape}."
        )
    shape = tuple(map(int, cells))
    for axis, (n, m) in enumerate(zip(grid.shape, shape, strict=True)):
        if n == m:
            continue
        if grid.boundary[axis][0] != "periodic":
            raise ValueError(
                f"`shape` (={shape}) changes axis {axis}, which is not periodic ({grid.boundary[axis][0]}): there only"
                " `block_average` applies."
            )
        matrix = _interpolation(n, m).to(frames)
        frames = torch.tensordot(matrix, frames, ([1], [3 + axis])).movedim(0, 3 + axis)
    spacing = tuple(length / m for length, m in zip(grid.extent, shape, strict=True))
    return frames, Grid(shape, spacing, grid.boundary, grid.unit)


def to_centers(values: Tensor, grid: Grid, axis: int) -> Tensor:
    """Mean of the two neighbours of each cell centre along an axis; second order in the cell size.

    Args:
        values: shape (..., *points), the points shifted by half a cell along ``axis``, centred along the others. With n
            cells on the axis there are n + 1 points, both ends included; or n, the low end of each cell, where the axis
            is periodic or the value at the high end is zero; or n − 1, where it is zero at both ends.
        grid: the grid of the cells.
        axis: which of its axes.

    Returns:
        Shape (..., *points) with n points along the axis.

    Raises:
        ValueError: another number of points, or too few for a periodic axis.
    """
    place, n = values.ndim - grid.dim + axis, grid.shape[axis]
    points, periodic = values.shape[place], grid.boundary[axis][0] == "periodic"
    allowed = (n, n + 1) if periodic else (n - 1, n, n + 1)
    if points not in allowed:
        raise ValueError(
            f"`values` has {points} points along axis {axis} of {n} cells ({grid.boundary[axis][0]}): expected"
            f" {' or '.join(map(str, allowed))}."
        )
    if points == n and periodic:
        return (values + values.roll(-1, place)) / 2
    zero = torch.zeros_like(values.narrow(place, 0, 1))
    if points == n - 1:
        values = torch.cat([zero, values, zero], place)
    elif points == n:
        values = torch.cat([values, zero], place)
    return (values.narrow(place, 0, n) + values.narrow(place, 1, n)) / 2


def colocate(
    spec: FieldSpec,
    grid: Grid,
    components: Mapping[str, Sequence[Tensor]],
    staggering: Mapping[str, str] | None = None,
) -> Tensor:
    """Frames from components on staggered points, averaged to the cell centres.

    Args:
        spec: the fields.
        grid: the grid of the cells.
        components: for each dynamic field its components in the order of the blades, each (batch, time, *points).
        staggering: for each staggered field one of ``STAGGERINGS``; the others are at the centres already.

    Returns:
        Shape (batch, time, blade, *grid).

    Raises:
        ValueError: an unknown field or staggering, a wrong number of components, or of points (see ``to_centers``).

    Example:
        >>> from cliffsteer import Field
        >>> spec, grid = FieldSpec((1, 1), [Field("velocity", 1, "m/s")]), Grid((8, 8), 1.0, "no_slip")
        >>> faces = [torch.zeros(1, 1, 9, 8), torch.zeros(1, 1, 8, 9)]
        >>> colocate(spec, grid, {"velocity": faces}, {"velocity": "faces"}).shape
        torch.Size([1, 1, 4, 8, 8])
    """
    staggering = dict(staggering or {})
    for name, kind in staggering.items():
        if kind not in STAGGERINGS:
            raise ValueError(f"`staggering` of {name!r} (={kind!r}) must be {' or '.join(map(repr, STAGGERINGS))}.")
        if name not in components:
            raise ValueError(f"`staggering` names {name!r}, which `components` has not: {', '.join(components)}.")
    values = {}
    for name, parts in components.items():
        field = spec[name]
        blades = spec.algebra.blades[spec.algebra.grade_slice(field.grade)]
        if len(parts) != len(blades):
            raise ValueError(f"`{name}` has {len(parts)} components: grade {field.grade} has {len(blades)}.")
        centred = []
        for part, blade in zip(parts, blades, strict=True):
            for axis in shifted_axes(blade, grid.dim, staggering.get(name)):
                part = to_centers(part, grid, axis)
            centred.append(part)
        values[name] = torch.stack(centred, 2)
    return spec.pack(values)


def shifted_axes(blade: Sequence[int], dim: int, staggering: str | None) -> list[int]:
    """The axes along which the points of a component are shifted by half a cell."""
    if staggering is None:
        return []
    return [axis for axis in range(dim) if (axis in blade) == (staggering == "faces")]


def _interpolation(n: int, m: int) -> Tensor:
    """The matrix (m, n) from n centred samples of a periodic function to m."""
    k = torch.arange(min(n, m) // 2 + 1, dtype=torch.float64)
    weights = torch.where((k == 0) | (2 * k == n), 1.0, 2.0)
    source, target = (2 * math.pi * (torch.arange(p, dtype=torch.float64) + 0.5) / p for p in (n, m))
    phase = target[:, None, None] * k - source[:, None] * k  # (m, n, k)
    return (phase.cos() * weights).sum(-1) / n
