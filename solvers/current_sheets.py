"""Current sheets: thin rectangles of oscillating current, which radiate into both half spaces, drawn per trajectory.

A sheet is a body of prescribed polarisation P(x, t) = p(x) s(t) and so of current J = ∂ₜP; Maxwell's equations hold for
D = εE + P. It is a soft source: waves pass through it. With

    s(t) = sin²(πt/(mT)) sin(2πt/T + φ),  0 < t < mT      m cycles of period T, then silence

s ends at zero, and no charge is left behind. Without an end, s(t) = sin(2πt/T + φ) grows from zero over its first
cycle as sin²(πt/(2T)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cliffsteer.grid import Grid
from cliffsteer.solvers.inclusions import covered
from cliffsteer.solvers.maxwell import read_options
from cliffsteer.solvers.options import number, read_pair, whole
from cliffsteer.solvers.yee import YeeGrid


@dataclass(frozen=True)
class CurrentSheets:
    """How many sheets to place, and the ranges that they are drawn from, uniformly.

    Centre, normal (one of the axes), direction of the current in the plane and phase are drawn as well. Sheets that
    are as large as the domain send out plane waves; small ones are antennas.

    Args:
        count: number of sheets.
        size: lowest and highest length of their sides, in m.
        thickness: along the normal, in m; it may be less than a cell.
        wavelength: lowest and highest wavelength in vacuum, cT, in m.
        amplitude: lowest and highest peak of P/ε₀, in V/m.
        cycles: periods that a sheet is on, at least 2; None for ever.
    """

    count: int = 0
    size: Sequence[float] = (0.2, 0.4)
    thickness: float = 0.03
    wavelength: Sequence[float] = (0.3, 0.6)
    amplitude: Sequence[float] = (0.5, 1.0)
    cycles: int | None = 2

    def __post_init__(self):
        object.__setattr__(self, "count", whole("sources.count", self.count, 0))
        object.__setattr__(self, "thickness", number("sources.thickness", self.thickness, "m", above=0.0))
        for name in ("size", "wavelength"):
            object.__setattr__(self, name, read_pair(f"sources.{name}", getattr(self, name), "m", above=0.0))
        object.__setattr__(self, "amplitude", read_pair("sources.amplitude", self.amplitude, "V/m", low=0.0))
        if self.cycles is not None:
            object.__setattr__(self, "cycles", whole("sources.cycles", self.cycles, 2))

    @classmethod
    def of_options(cls, options: Mapping[str, Any] | None) -> CurrentSheets:
        """From a mapping with some of the arguments; None for no sheets.

        Raises:
            ValueError: a key that is none of them, or a value out of range.
        """
        return cls(**read_options("sources", options, cls))

    def draw(self, grid: Grid, generator: torch.Generator) -> Tensor:
        """One row per sheet: centre, sides, P/ε₀ (each one number per axis), period, phase; (count, 3·dim + 2)."""
        rows = [self._row(grid, generator) for _ in range(self.count)]
        return torch.stack(rows) if rows else torch.zeros(0, 3 * grid.dim + 2, dtype=torch.float64)

    def waveform(self, sheets: Tensor, time: Tensor) -> Tensor:
        """s(t) of sheets (batch, sheet, column) at times (batch,) in m/c, shape (batch, sheet)."""
        period, phase = sheets[..., -2], sheets[..., -1]
        cycle = time[:, None] / period
        if self.cycles is None:
            swell = torch.sin(math.pi / 2 * cycle.clamp(0, 1)).square()
        else:
            swell = torch.sin(math.pi / self.cycles * cycle).square() * (cycle > 0) * (cycle < self.cycles)
        return swell * torch.sin(2 * math.pi * cycle + phase)

    def silent(self, sheets: Tensor, time: Tensor) -> bool:
        """Whether all sheets have fallen silent by these times."""
        if self.cycles is None or not sheets.shape[1]:
            return not sheets.shape[1]
        return bool((time[:, None] >= self.cycles * sheets[..., -2]).all())

    def _row(self, grid: Grid, generator: torch.Generator) -> Tensor:
        normal = int(torch.randint(grid.dim, (), generator=generator))
        fractions = torch.rand(2 * grid.dim + 3, dtype=torch.float64, generator=generator)
        direction = torch.randn(grid.dim, dtype=torch.float64, generator=generator)
        direction[normal] = 0.0
        center, sides, (height, length, turn) = fractions.split((grid.dim, grid.dim, 3))
        sides = _between(self.size, sides)
        sides[normal] = self.thickness
        vector = _between(self.amplitude, height) * direction / direction.norm()
        last = torch.stack([_between(self.wavelength, length), 2 * math.pi * turn])
        return torch.cat([center * torch.tensor(grid.extent, dtype=torch.float64), sides, vector, last])


def polarisation(grid: YeeGrid, sheets: Tensor, strength: Tensor) -> list[Tensor]:
    """P/ε₀ on the edges: the sum over sheets of strength · p(x), each body's share of the cell around the edge.

    Args:
        grid: the Yee grid.
        sheets: rows as ``CurrentSheets.draw`` makes them, shape (batch, sheet, column).
        strength: s(t) or a difference of it, shape (batch, sheet).

    Returns:
        One tensor (batch, *shape) per axis.
    """
    dim = grid.grid.dim
    center, sides, vector = sheets[..., : 3 * dim].unflatten(-1, (3, dim)).unbind(-2)
    out = []
    for component, blade in enumerate(grid.blades(1)):
        product = (strength * vector[..., component])[..., None]
        shares = [
            covered(x.to(sheets), center[..., axis, None], sides[..., axis, None], grid.grid, axis)
            for axis, x in enumerate(grid.positions(blade))
        ]
        for share in shares[:-1]:
            product = (product[..., :, None] * share[..., None, :]).flatten(2)
        total = product.mT @ shares[-1]  # sum over sheets
        out.append(total.view(len(sheets), *grid.shape(blade)))
    return out


def _between(limits: Sequence[float], fraction: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * fraction
