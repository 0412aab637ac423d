"""Rescaled: a Stepper at another length and time scale, by the units of its fields."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from cliffsteer.grid import Grid
from cliffsteer.stepper import Parameters, Stepper, check_frames

NEUTRAL = {"1", "V", "S", "K", "kg"}
"""Units that neither length nor time enter, as far as equations are concerned that are linear in their fields."""
ELECTRIC = {"V", "S"}


class Rescaled:
    """The same equation in other units: lengths ``length`` times as large, times ``time`` times as long.

    A field of unit mᵃ sᵇ and value v here has the value v / (Lᵃ Tᵇ) inside. Where the equation has no dimensional
    constants besides its fields and parameter fields, as Navier-Stokes with viscosity and force in m²/s and m/s², the
    result is exact for every L and T: a surrogate then serves a whole family of domain sizes and time steps with no
    error of its own. Equations of fields in volts, those on spacetime, and those of which no unit has a time, as the
    Klein-Gordon equation (`klein_gordon`), contain the speed of light, so for them L = T (times are in m/c).

    Constants that the spec does not name, as depth and damping of `shallow_water`, are rescaled as well; that cannot be
    detected.

    Args:
        stepper: any Stepper.
        length: L, > 0.
        time: T, > 0.

    Attributes:
        spec, history: those of the stepper.
        grid, dt: with all cells L times as large, and T times as long.

    Raises:
        ValueError: a factor that is not positive, a unit that is not made of m, s, V, S, K and kg, or L ≠ T where the
            speed of light enters.

    Example:
        >>> from cliffsteer.solvers import create
        >>> box = create("smoke", resolution=16, size=32.0, dt=1.5)
        >>> Rescaled(box, length=2.0, time=4.0).grid.extent
        (64.0, 64.0)
    """

    def __init__(self, stepper: Stepper, length: float, time: float):
        for name, value in (("length", length), ("time", time)):
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` (={value}) must be positive and finite.")
        spec = stepper.spec
        exponents = {field.name: unit_exponents(field.unit) for field in spec.fields}
        timeless = not any("s" in found for found in exponents.values())
        factors = {}
        for field in spec.fields:
            found = exponents[field.name]
            light = timeless or ELECTRIC & found.keys() or len(set(spec.algebra.signature)) > 1
            if light and not math.isclose(length, time, rel_tol=1e-12):
                raise ValueError(
                    f"`time` (={time}) must equal `length` (={length}): the speed of light enters the equations of"
                    f" {field.name!r} ({field.unit})."
                )
            factors[field.name] = length ** found.get("m", 0) * time ** found.get("s", 0)
        self.stepper, self.length, self.time, self.factors = stepper, float(length), float(time), factors
        self.spec, self.history, self.dt = spec, stepper.history, stepper.dt * time
        grid = stepper.grid
        per_axis = [time if unit == "s" else length for unit in grid.unit]
        spacing = tuple(h * factor for h, factor in zip(grid.spacing, per_axis, strict=True))
        self.grid = Grid(grid.shape, spacing, grid.boundary, grid.unit)
        self._frames = torch.ones(spec.n_blades, dtype=torch.float64)
        for field in spec.dynamic:
            self._frames[spec.slots[field.name].start : spec.slots[field.name].stop] = factors[field.name]

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The stepper's next frames, in the units outside; shapes as for the stepper."""
        check_frames(self, frames)
        factor = self._frames.to(frames).view(-1, *[1] * self.grid.dim)
        packed = self.spec.pack_parameters(parameters, len(frames), torch.float64, frames.device)
        inside = {name: v / self.factors[name] for name, v in self.spec.unpack_parameters(packed).items()}
        return self.stepper.step(frames / factor, inside) * factor


def unit_exponents(unit: str) -> dict[str, int]:
    """Exponents of a unit as the library writes it, ``"m/s^2"`` -> {"m": 1, "s": -2}.

    Raises:
        ValueError: a part that is none of m, s, V, S, K, kg and 1.
    """
    found: dict[str, int] = {}
    for place, part in enumerate(unit.split("/")):
        for word in re.split(r"[*·\s]+", part.strip()):
            match = re.fullmatch(r"([A-Za-z1]+)(?:\^(-?\d+))?", word)
            if not match or match[1] not in NEUTRAL | {"m", "s"}:
                raise ValueError(f"`unit` (={unit!r}) cannot be rescaled: {word!r} is none of m, s, V, S, K, kg and 1.")
            found[match[1]] = found.get(match[1], 0) + int(match[2] or 1) * (-1 if place else 1)
    return found
