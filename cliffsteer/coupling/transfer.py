"""Frames from one grid to another of the same domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.functional import block_mean
from cliffsteer.grid import Grid, check_grid_shape
from cliffsteer.nn.resample import Upsample


def transfer(frames: Tensor, spec: FieldSpec, grid: Grid, target: Grid) -> Tensor:
    """Frames on another grid of the same domain, differentiably.

    Periodic axes: trigonometric interpolation, exact for the waves that both grids resolve. With walls: block averages
    towards coarser cells, multilinear interpolation between centres towards finer ones, where scalars go on as they are
    behind a wall and other fields as the boundary asks (`nn.Padding`).

    Args:
        frames: shape (batch, time, blade, *grid).
        spec: their fields.
        grid: their grid.
        target: the other grid.

    Returns:
        Shape (batch, time, blade, *target), in the dtype of ``frames``.

    Raises:
        ValueError: another domain or boundary, or with walls a ratio of cells that is not one whole number.
    """
    check_grid_shape(frames, grid)
    require_same_domain(grid, target)
    if grid.shape == target.shape:
        return frames
    if grid.is_periodic:
        from cliffsteer.datasets.resample import spectral_resample

        return spectral_resample(frames, grid, target.shape)[0]
    factor = whole_factor(grid, target)
    if factor < 0:
        return block_mean(frames, -factor, grid.dim)
    as_they_are = Upsample(spec.algebra, factor, "linear", "symmetric")(frames)
    as_walls_ask = Upsample(spec.algebra, factor, "linear", grid)(frames)
    scalar = torch.zeros(spec.n_blades, dtype=torch.bool, device=frames.device)
    scalar[:: spec.algebra.n_blades] = True
    return torch.where(scalar.view(-1, *[1] * grid.dim), as_they_are, as_walls_ask)


def require_same_domain(grid: Grid, target: Grid) -> None:
    """Raise a ValueError unless two grids divide the same domain into cells."""
    for key, ours, theirs in (
        ("unit", grid.unit, target.unit),
        ("boundary", grid.boundary, target.boundary),
        ("extent", grid.extent, target.extent),
    ):
        same = ours == theirs
        if key == "extent" and len(ours) == len(theirs):
            same = all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(ours, theirs, strict=True))
        if not same:
            raise ValueError(f"`target` has {key} {theirs}, expected {ours}: both grids must be of one domain.")


def whole_factor(grid: Grid, target: Grid) -> int:
    """How many cells of the target make up one of the grid along each axis; negative for the other way round.

    Raises:
        ValueError: a ratio that is not whole, or not the same along all axes.
    """
    finer = target.shape[0] > grid.shape[0]
    fine, coarse = (target, grid) if finer else (grid, target)
    factor = fine.shape[0] // coarse.shape[0]
    if any(n != factor * m for n, m in zip(fine.shape, coarse.shape, strict=True)):
        raise ValueError(
            f"`target` has {target.shape} cells and the grid {grid.shape}: with walls, one must be the other times a"
            " whole number."
        )
    return factor if finer else -factor
