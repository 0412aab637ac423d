"""Grid: shape, spacing and boundary conditions of a regular, cell-centred lattice.

Axis i of a grid belongs to basis vector e_{i+1} ("ij" indexing). Values live at cell centres, so reversing an axis
maps cells onto cells.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

BOUNDARIES = ("periodic", "slip", "no_slip", "conductor", "open")
"""Kinds of a side: periodic; slip wall (impermeable, no friction); no-slip wall; perfect conductor; open."""


@dataclass(frozen=True)
class Grid:
    """A regular grid.

    Args:
        shape: number of cells along each axis.
        spacing: cell size along each axis, in ``unit``; one number for all axes alike.
        boundary: a kind for all sides, or one per axis, or a pair (low, high) per axis. Kinds: "periodic",
            "slip", "no_slip", "conductor", "open".
        unit: unit of the spacing, one for all axes or one per axis.

    Raises:
        ValueError: lengths that do not agree, a shape that is not whole, a spacing that is not positive and finite, an
            unknown boundary, or an axis that is periodic on one side only.

    Example:
        >>> Grid((64, 64), 0.5, "slip").extent
        (32.0, 32.0)
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | float = 1.0
    boundary: Any = "periodic"
    unit: tuple[str, ...] | str = "m"

    def __post_init__(self):
        shape = _converted(self.shape, operator.index)
        if not shape or any(s < 1 for s in shape):
            raise ValueError(
                f"`shape` (={self.shape!r}) must hold a positive whole number of cells for each axis, as in (64, 64)."
            )
        dim = len(shape)
        single = getattr(self.spacing, "ndim", None) == 0  # a NumPy scalar or a tensor without axes
        spacing = _converted(
            _per_axis("spacing", float(self.spacing) if single else self.spacing, dim, (int, float)), float
        )
        if not spacing or any(not 0 < s < math.inf for s in spacing):
            raise ValueError(f"`spacing` (={self.spacing!r}) must be positive and finite on every axis.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "unit", _per_axis("unit", self.unit, dim, (str,)))
        object.__setattr__(self, "boundary", _boundary(self.boundary, dim))

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def extent(self) -> tuple[float, ...]:
        """Length of the domain along each axis, shape × spacing."""
        return tuple(n * h for n, h in zip(self.shape, self.spacing, strict=True))

    @property
    def is_periodic(self) -> bool:
        """True when every side is periodic."""
        return all(side == "periodic" for sides in self.boundary for side in sides)

    def coordinates(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Cell centres, shape (dim, *shape): (i + 1/2) · spacing."""
        axes = [(torch.arange(n, dtype=dtype) + 0.5) * h for n, h in zip(self.shape, self.spacing, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def coarsened(self, factor: int) -> Grid:
        """The grid of the same domain with ``factor`` times larger cells.

        Raises:
            ValueError: the shape is not divisible by the factor.
        """
        if factor < 1 or any(n % factor for n in self.shape):
            raise ValueError(f"`factor` (={factor}) must divide every side of the grid {self.shape}.")
        shape = tuple(n // factor for n in self.shape)
        return Grid(shape, tuple(h * factor for h in self.spacing), self.boundary, self.unit)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``Grid.from_dict`` reads it back."""
        return {key: _listed(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Grid:
        """The grid that ``to_dict`` described."""
        return cls(tuple(data["shape"]), tuple(data["spacing"]), _tupled(data["boundary"]), tuple(data["unit"]))


def _converted(values: Any, convert: Callable[[Any], Any] | None = None) -> tuple:
    """The values as a tuple, each converted; empty when they are no sequence or one cannot be converted."""
    try:
        return tuple(values) if convert is None else tuple(convert(v) for v in values)
    except (TypeError, ValueError):
        return ()


def _per_axis(name: str, value: Any, dim: int, scalar: tuple[type, ...]) -> tuple:
    values = (value,) * dim if isinstance(value, scalar) else _converted(value)
    if len(values) != dim:
        raise ValueError(f"`{name}` (={value}) must be one value, or {dim}, one for each axis of the grid.")
    return values


def _boundary(value: Any, dim: int) -> tuple[tuple[str, str], ...]:
    per_axis = (value,) * dim if isinstance(value, str) else _converted(value)
    if len(per_axis) != dim:
        raise ValueError(f"`boundary` (={value}) must be one kind, or {dim} kinds or (low, high) pairs, one per axis.")
    sides = tuple((side, side) if isinstance(side, str) else tuple(side) for side in per_axis)
    for axis, pair in enumerate(sides):
        if len(pair) != 2 or any(side not in BOUNDARIES for side in pair):
            raise ValueError(f"`boundary` on axis {axis} (={pair}) must be of the kinds {', '.join(BOUNDARIES)}.")
        if pair.count("periodic") == 1:
            raise ValueError(f"`boundary` on axis {axis} (={pair}) must be periodic on both sides or on neither.")
    return sides


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list | tuple) else value


def require_same_grid(name: str, grid: Grid, expected: Grid) -> None:
    """Raise a ValueError that names the first difference when two grids differ."""
    for key, value in grid.to_dict().items():
        if value != expected.to_dict()[key]:
            raise ValueError(
                f"`{name}` has a grid with {key} {value}, expected {expected.to_dict()[key]}: data and model must"
                " share one grid."
            )


def check_grid_shape(frames: Tensor, grid: Grid) -> None:
    """Raise a ValueError unless the trailing axes of frames (batch, time, blade, *grid) are the grid's."""
    if tuple(frames.shape[3:]) != grid.shape:
        raise ValueError(
            f"`frames` has shape {tuple(frames.shape)}: the axes after (batch, time, blade) must be the grid's,"
            f" {grid.shape}."
        )
