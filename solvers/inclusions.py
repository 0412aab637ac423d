"""Inclusions: dielectric blocks and balls in a background medium, drawn for each trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cliffsteer.grid import Grid
from cliffsteer.solvers.maxwell import read_options
from cliffsteer.solvers.options import read_pair, whole


@dataclass(frozen=True)
class Inclusions:
    """How many bodies to place, and the ranges that their size and permittivity are drawn from, uniformly.

    Centres are uniform in the domain; across periodic sides bodies go on. A later body displaces earlier ones.

    Args:
        blocks: number of blocks, sides along the axes.
        balls: number of balls.
        size: lowest and highest side or diameter, in m.
        permittivity: lowest and highest relative permittivity.
    """

    blocks: int = 0
    balls: int = 0
    size: Sequence[float] = (0.2, 0.5)
    permittivity: Sequence[float] = (2.0, 4.0)

    def __post_init__(self):
        for name in ("blocks", "balls"):
            object.__setattr__(self, name, whole(f"inclusions.{name}", getattr(self, name), 0))
        for name, unit in {"size": "m", "permittivity": ""}.items():
            object.__setattr__(self, name, read_pair(f"inclusions.{name}", getattr(self, name), unit, above=0.0))

    @classmethod
    def of_options(cls, options: Mapping[str, Any] | None) -> Inclusions:
        """From a mapping with some of the arguments; None for no bodies.

        Raises:
            ValueError: a key that is none of them, or a value out of range.
        """
        return cls(**read_options("inclusions", options, cls))

    @property
    def count(self) -> int:
        """Number of bodies."""
        return self.blocks + self.balls

    def draw(self, grid: Grid, background: float, generator: torch.Generator) -> Tensor:
        """Relative permittivity of each cell, shape grid.shape; cells that a body fills in part take their share."""
        cells = torch.full(grid.shape, background, dtype=torch.float64)
        for body in range(self.count):
            draws = torch.rand(2 * grid.dim + 1, dtype=torch.float64, generator=generator)
            center = draws[: grid.dim] * torch.tensor(grid.extent, dtype=torch.float64)
            low, high = self.size
            sides = low + (high - low) * draws[grid.dim : 2 * grid.dim]
            low, high = self.permittivity
            value = low + (high - low) * draws[-1]
            if body < self.blocks:
                share = torch.ones((), dtype=torch.float64)
                for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
                    x = (torch.arange(n, dtype=torch.float64) + 0.5) * h
                    share = share[..., None] * covered(x, center[axis], sides[axis], grid, axis)
            else:
                radius = (
                    sides[0] / 2
                )  # a shell as thick as a cell, linear in the volume, so that the ball keeps its own
                depth = (radius**3 - _distance(grid, center) ** 3) / (3 * radius**2 * max(grid.spacing))
                share = (0.5 + depth).clamp(0, 1)
            cells = cells + share * (value - cells)
        return cells


def covered(x: Tensor, center: Tensor, side: Tensor, grid: Grid, axis: int) -> Tensor:
    """The share of intervals of one cell's length that a bar covers, along one axis; it goes on across periodic sides.

    Args:
        x: midpoints of the intervals, along the last axis.
        center: of the bar; broadcast against ``x``.
        side: length of the bar; likewise.
        grid: the grid.
        axis: the axis.
    """
    h, length = grid.spacing[axis], grid.extent[axis]
    images = (-length, 0.0, length) if grid.boundary[axis][0] == "periodic" else (0.0,)
    reach = [((side + h) / 2 - (x - center - image).abs()).clamp_min(0) for image in images]
    return (sum(torch.minimum(r, torch.minimum(side, r.new_tensor(h))) for r in reach) / h).clamp_max(1.0)


def _distance(grid: Grid, center: Tensor) -> Tensor:
    """Distance of each cell from a point, to the nearest image where periodic, shape grid.shape."""
    away = (grid.coordinates() - center.view(-1, *[1] * grid.dim)).abs()
    for axis, (length, sides) in enumerate(zip(grid.extent, grid.boundary, strict=True)):
        if sides[0] == "periodic":
            away[axis] = torch.minimum(away[axis], length - away[axis])
    return away.norm(dim=0)
