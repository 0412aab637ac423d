"""What the solvers of Maxwell's equations share: units, fields, media and boxes.

    ∂ₜ(εE) = ∇·B/μ − Z₀σ E,   ∂ₜB = −∇∧E,        (∇·B)_i = Σ_j ∂_j B_ij,   (∇∧E)_ij = ∂_i E_j − ∂_j E_i

E is a vector, B a bivector: B_ij = ∂_i A_j − ∂_j A_i, in space (B₁₂, B₁₃, B₂₃) = (b₃, −b₂, b₁) of the axial vector b,
so that reflections need no exception. Frames hold cB, in V/m like E, and time is counted in m/c, the 3.34 ns that
light takes for a metre in vacuum; c, ε₀ and μ₀ then drop out. ε and μ are relative, σ is in S/m, Z₀ = 376.73 Ω.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from cliffsteer.fields import Field
from cliffsteer.grid import Grid
from cliffsteer.solvers.options import draw, number, require_values, value_or_range, whole
from cliffsteer.suggestions import question

IMPEDANCE = 376.730313412
"""Z₀, impedance of the vacuum, in Ω (CODATA 2022)."""
TIME_UNIT = "m/c"
FIELD_UNIT = "V/m"
_UNITS = {"permittivity": "1", "permeability": "1", "conductivity": "S/m"}


@dataclass(frozen=True)
class Media:
    """A homogeneous medium for each trajectory: fixed values, or ranges that each trajectory draws its own from.

    Args:
        values: relative permittivity, relative permeability and conductivity in S/m, by name.
        ranges: for each of them (lowest, highest), or None where the value is fixed.
    """

    values: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float] | None]

    @classmethod
    def of_options(cls, **options: Any) -> Media:
        """From the options ``permittivity``, ``permittivity_range`` and so on; those that are None take vacuum's.

        Raises:
            ValueError: a value and a range of one name, or one out of range.
        """
        values, ranges = {}, {}
        for name, limits in _LIMITS.items():
            pair = options.get(f"{name}_range")
            default = 0.0 if name == "conductivity" else 1.0
            values[name], ranges[name] = value_or_range(
                name, options.get(name), pair, default, _shown_unit(name), **limits
            )
        return cls(values, ranges)

    def fields(self) -> list[Field]:
        """The parameter fields, scalars."""
        return [Field(name, 0, _UNITS[name], "parameter", (value,)) for name, value in self.values.items()]

    def lowest(self, name: str) -> float:
        """The lowest value that a trajectory may draw."""
        pair = self.ranges[name]
        return self.values[name] if pair is None else pair[0]

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of one trajectory, each of shape (1,)."""
        return {name: draw(self.ranges[name], value, generator) for name, value in self.values.items()}


_LIMITS: dict[str, dict[str, float]] = {
    "permittivity": {"above": 0.0},
    "permeability": {"above": 0.0},
    "conductivity": {"low": 0.0},
}


def check_media(parameters: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless parameters (batch, 1) are finite, ε > 0, μ > 0 and σ >= 0."""
    for name, values in parameters.items():
        require_values(name, values, _shown_unit(name), **_LIMITS[name])


def box(
    resolution: int | Sequence[int], size: float | Sequence[float], boundary: Any = "periodic", least: int = 4
) -> Grid:
    """A box of three axes.

    Args:
        resolution: number of cells along each side; one number for all or one per axis.
        size: length of the sides, in m; one number for all or one per axis.
        boundary: as in ``Grid``.
        least: lowest number of cells along a side.

    Raises:
        ValueError: counts that are not whole, lengths that are not positive, or not one or three of them.
    """
    cells = [whole("resolution", n, least, " of cells a side") for n in _per_axis("resolution", resolution)]
    lengths = [number("size", length, "m", above=0.0) for length in _per_axis("size", size)]
    return Grid(tuple(cells), tuple(length / n for length, n in zip(lengths, cells, strict=True)), boundary, "m")


def read_options(name: str, options: Mapping[str, Any] | None, cls: type) -> dict[str, Any]:
    """Keyword arguments of a dataclass from an option that is a mapping, or None for all its defaults.

    Raises:
        ValueError: it is no mapping, or one of its keys is no field of the dataclass.
    """
    if options is None:
        return {}
    known = [field.name for field in fields(cls)]
    if not isinstance(options, Mapping):
        raise ValueError(f"`{name}` (={options!r}) must be a mapping of {', '.join(known)}.")
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"`{name}.{unknown[0]}` is no option: `{name}` has {', '.join(known)}.{question(str(unknown[0]), known)}"
        )
    return dict(options)


def _per_axis(name: str, value: Any) -> list[Any]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * 3
    if len(values) != 3:
        raise ValueError(f"`{name}` (={value!r}) must be one number for all axes, or three, one per axis.")
    return values


def _shown_unit(name: str) -> str:
    return "" if _UNITS[name] == "1" else _UNITS[name]
