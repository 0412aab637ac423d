"""Maxwell charges: the field of oscillating and orbiting point charges on the spacetime R^{1,2}, exact, in float64.

Charges oscillate along a line or orbit on a circle while they drift, all within a plane, slower than light:

    r(t) = o + v t + A d cos ωt    or    r(t) = o + v t + R (cos ωt, sin ωt)

Their field follows from the retarded potentials of Liénard and Wiechert at every point of the plane
(``lienard_wiechert``), from all their past: nothing starts at t = 0. It is the field of 3+1 dimensions on a slice, and
so solves Faraday's law on the slice but not Gauss's and Ampère's; solver ``maxwell2d`` solves all of them in a plane.

Points have the field of the unit charge at infinite strength, so it is not sampled once a cell: each frame is the
average over ``oversampling``² points in each cell, at one instant. Before that, the field's size, over many orders of
magnitude, is compressed by a function of the invariant |F|² = |E² − c²B²|, which commutes with the Lorentz group:

    F -> F log10(|F|) / max(|F|, floor),    |F| and floor in V/m (|F| below 1 V/m counts as that)

This is the data set of Zhdanov et al., "Clifford-Steerable Convolutional Neural Networks" (ICML 2024), by the numbers
of its public script, which runs PyCharge (Filipovich and Hughes, 2022). Here the cells are as long in time as in space,
c Δt = Δx. Three faults of that script are left out by default, and ``published_faults`` brings them back: oscillating
charges move with the drift v but radiate as if it were −v; orbiting charges all orbit about the same point, o = 0;
c Δt is a quarter of Δx (0.2502), and the points reach from edge to edge. Two things stay different: it averages with a
triangle twice as wide, and it draws a trajectory again when the standard deviation of its values is 20 or more.

Good values, the defaults: 32 cells of 8² points along 100 nm, 8 to 11 charges with speeds up to 0.4 of that of light.

Sources: Zhdanov et al., "Clifford-Steerable Convolutional Neural Networks" (2024), for the setting; Filipovich and
Hughes, "PyCharge: an open-source Python package for self-consistent electrodynamics simulations of Lorentz oscillators
and moving point charges" (2022), for the field of point charges and the data's generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from cliffsteer.solvers.base import State
from cliffsteer.solvers.charges import HarmonicMotion
from cliffsteer.solvers.lienard_wiechert import bivector, retarded, straight_delay
from cliffsteer.solvers.options import choice, number, whole
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.spacetime import SpacetimeSolver

UNIT_FIELD = 1.602176634e-19 / (4 * math.pi * 8.8541878188e-12) * 1e18
"""Field of an elementary charge at a distance of 1 nm, in V/m (CODATA 2022)."""
OSCILLATING, ORBITING = (3, 4), (5, 7)
CHARGES = (3, 2, 1, -1, -2, -3)
"""Charges drawn from, in elementary charges."""
MAX_CHARGES = 20
ORIGINS, APART = 0.3, 0.1
"""Half the side of the square of the origins, and their least distance, over half the size."""
SWING = 0.6
"""Share of the speed that goes into oscillation or orbit."""
COMMON, OWN = 0.12, 0.08
"""Drift that all charges of a trajectory share, and drift of each of its own, over the speed."""
AMPLITUDES, RADII = (0.02, 0.04), (0.025, 0.05)
"""Of oscillations and orbits, over half the size."""
SLOWEST_OSCILLATION, SLOWEST_ORBIT = 0.67, 0.75
"""Lowest frequency over the highest, which brings the largest amplitude to its share of the speed."""
PUBLISHED_STEP = 2 * math.pi / 7.5e16 / 256 * 8 * 299792458 * 1e9
"""c Δt of the published data, in nm."""
_CHUNK = 20_000  # pairs of charge and point at a time: all that is needed for them stays in a core's cache


@register("maxwell_charges")
class MaxwellCharges(SpacetimeSolver):
    """Fields of relativistic point charges on the spacetime R^{1,2}, blocks (t, x, y); the data of the CS-CNN paper.

    States hold ``time`` (batch,), the start of the block in nm/c, and the charges: ``charge`` in elementary charges,
    zero for those that a trajectory does not have, and what ``HarmonicMotion`` needs, lengths in nm.

    Args:
        resolution: number of cells along each side of the plane.
        oversampling: points that are averaged along each side of a cell.
        size: length of each side of the plane, in nm; origins, amplitudes and wavelengths grow with it.
        block: points in time of a block; default: ``resolution``.
        courant: c Δt over the size of a cell; default 1, with ``published_faults`` 0.2502.
        oscillating: lowest and highest number of oscillating charges; default (3, 4).
        orbiting: the same of orbiting charges; default (5, 7).
        speed: that all speeds are in proportion to, in c; charges reach up to 0.8 of it, three quarters of that by
            their oscillation or orbit.
        random_phases: draw the phase of each oscillation and orbit and the sense of each orbit; otherwise all begin
            with cos ωt = 1 and orbit counterclockwise, as in the published data.
        normalization: "log" as above, or "none" for fields in V/m.
        floor: of the normalisation, in V/m.
        published_faults: bring back the three faults above.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> solver = MaxwellCharges(resolution=8)
        >>> solver.observe(solver.initial([0])).shape
        torch.Size([1, 1, 8, 8, 8, 8])
    """

    name: ClassVar[str] = "maxwell_charges"

    def __init__(
        self,
        resolution: int = 32,
        oversampling: int = 8,
        size: float = 100.0,
        block: int | None = None,
        courant: float | None = None,
        oscillating: Sequence[int] | None = None,
        orbiting: Sequence[int] | None = None,
        speed: float = 0.5,
        random_phases: bool = False,
        normalization: str = "log",
        floor: float = 1e7,
        published_faults: bool = False,
    ):
        cells = whole("resolution", resolution, 1, " of cells a side")
        self.oversampling = whole("oversampling", oversampling, 1)
        self.size = number("size", size, "nm", above=0)
        points = cells if block is None else whole("block", block, 1, " of points in time")
        self.counts = _counts(oscillating, orbiting)
        self.speed = number("speed", speed, "c", above=0)
        if self.speed >= 1:
            raise ValueError(f"`speed` (={speed}) must be below 1, the speed of light.")
        self.random_phases = _flag("random_phases", random_phases)
        self.normalization = choice("normalization", normalization, ("log", "none"))
        self.floor = number("floor", floor, "V/m", low=1)
        self.published_faults = _flag("published_faults", published_faults)
        # the published points begin and end on the edges, which puts them a little further apart
        fine = self.size / (cells * self.oversampling - self.published_faults)
        spacing = fine * self.oversampling
        if courant is None:
            courant = PUBLISHED_STEP * self.size / 100 / spacing if self.published_faults else 1.0
        courant = number("courant", courant, above=0)
        unit = "V/m" if normalization == "none" else "1"
        super().__init__(points, (cells, cells), spacing, courant, "open", "nm", unit)
        axis = (torch.arange(cells * self.oversampling, dtype=torch.float64) + 0.5) * fine - self.grid.extent[1] / 2
        self.points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))

    def initial(self, seeds: Sequence[int]) -> State:
        """Charges drawn by the recipe, and the block from t = 0 on (with ``published_faults`` its first point)."""
        drawn = [self._draw(torch.Generator().manual_seed(int(seed))) for seed in seeds or [0]]
        values = {name: torch.stack([d[name] for d in drawn])[: len(seeds)] for name in drawn[0]}
        start = -float(self.offsets[0]) if self.published_faults else 0.0
        return State({"time": torch.full((len(seeds),), start, dtype=torch.float64), **values}, {})

    def advance(self, state: State) -> State:
        """The state one block later: the clock goes on, the charges' whole motion is known."""
        return State({**state.values, "time": state.values["time"] + self.dt}, state.parameters)

    def observe(self, state: State) -> Tensor:
        """The block that begins at the state's time, frames (batch, 1, blade, t, x, y), float64."""
        time = state.values["time"]
        out = time.new_zeros(len(time), 1, self.spec.n_blades, *self.grid.shape)
        slot = self.spec.slots["faraday"]
        for i in range(len(time)):
            for j, offset in enumerate(self.offsets):
                field = self._normalized(self.field(state, i, time[i] + offset.to(time.device)))
                out[i, 0, slot.start : slot.stop, j] = avg_pool2d(field, self.oversampling)
        return out

    def field(self, state: State, trajectory: int, time: Tensor) -> Tensor:
        """(Ex, Ey, cBz) of one trajectory at all points of the plane at one time, in V/m, shape (3, x, y)."""
        present = state.values["charge"][trajectory] != 0
        values = {name: value[trajectory][..., present] for name, value in state.values.items() if name != "time"}
        charge, motion = values["charge"] * UNIT_FIELD, HarmonicMotion.of_values(values)
        points = self.points.to(time.device).flatten(1)
        parts = []
        for chunk in points.split(max(1, _CHUNK // len(charge)), 1):
            times = time.expand(chunk.shape[1])
            source = retarded(motion, times, chunk, straight_delay(motion, times, chunk))
            if self.published_faults:
                wrong = -2 * motion.drift * (1 - values["orbits"])
                velocity = (v + w.unsqueeze(-1) for v, w in zip(source.velocity, wrong, strict=True))
                source = replace(source, velocity=tuple(velocity))
            parts.append(bivector(charge, source))
        return torch.cat(parts, 1).unflatten(1, self.points.shape[1:])

    def _normalized(self, field: Tensor) -> Tensor:
        if self.normalization == "none":
            return field
        algebra = self.spec.algebra
        signs = algebra.blade_squares[algebra.grade_slice(2)]
        size = sum(sign * component.square() for sign, component in zip(signs, field, strict=True)).abs().sqrt()
        return field * (size.clamp(min=1).log10() / size.clamp(min=self.floor))

    def _draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Charges of one trajectory, in slots for the largest number; those not there have charge zero."""

        def uniform(low: float, high: float, count: int) -> Tensor:
            return low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator)

        def directions(count: int) -> Tensor:
            vectors = torch.randn(2, count, dtype=torch.float64, generator=generator)
            return vectors / vectors.norm(dim=0)

        numbers = [int(torch.randint(low, high + 1, (), generator=generator)) for low, high in self.counts]
        n, half = sum(numbers), self.size / 2
        choices = torch.tensor(CHARGES, dtype=torch.float64)
        charge = choices[torch.randint(len(CHARGES), (n,), generator=generator)]
        origins: list[Tensor] = []
        while len(origins) < n:
            origin = uniform(-ORIGINS * half, ORIGINS * half, 2)
            if all(float((origin - other).norm()) >= APART * half for other in origins):
                origins.append(origin)
        drift = self.speed * (COMMON * directions(1) + OWN * directions(n))
        is_orbit = torch.arange(n) >= numbers[0]
        along = directions(n).where(~is_orbit, torch.tensor([[1.0], [0.0]], dtype=torch.float64))
        across = torch.stack([-along[1], along[0]]) * is_orbit
        limits = torch.tensor([AMPLITUDES, RADII], dtype=torch.float64)[is_orbit.long()].T * half
        slowest = torch.tensor([SLOWEST_OSCILLATION, SLOWEST_ORBIT], dtype=torch.float64)[is_orbit.long()]
        radius = limits[0] + (limits[1] - limits[0]) * uniform(0, 1, n)
        omega = SWING * self.speed / limits[1] * (slowest + (1 - slowest) * uniform(0, 1, n))
        phase, turn = uniform(0, 2 * math.pi, n), torch.randint(2, (n,), generator=generator) * 2.0 - 1
        if self.random_phases:
            across = across * turn
            cos, sin = phase.cos(), phase.sin()
            along, across = along * cos + across * sin, across * cos - along * sin
        origin = torch.stack(origins, 1)
        if self.published_faults:
            origin = origin * ~is_orbit
        values = {"charge": charge, "orbits": is_orbit.to(torch.float64), "origin": origin, "drift": drift}
        values |= {"cosine": along * radius, "sine": across * radius, "omega": omega}
        return {name: pad(value, (0, sum(high for _, high in self.counts) - n)) for name, value in values.items()}


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` (={value!r}) must be true or false.")
    return value


def _counts(oscillating: Any, orbiting: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Lowest and highest numbers of oscillating and of orbiting charges."""
    pairs = []
    for name, pair, default in (("oscillating", oscillating, OSCILLATING), ("orbiting", orbiting, ORBITING)):
        given = default if pair is None else tuple(pair) if isinstance(pair, Sequence) else ()
        if len(given) != 2 or not all(isinstance(n, Integral) for n in given) or not 0 <= given[0] <= given[1]:
            raise ValueError(f"`{name}` (={pair!r}) must be a pair of whole numbers (lowest, highest).")
        pairs.append((int(given[0]), int(given[1])))
    least, most = (sum(numbers) for numbers in zip(*pairs, strict=True))
    if least < 1 or most > MAX_CHARGES:
        raise ValueError(
            f"`oscillating` (={pairs[0]}) and `orbiting` (={pairs[1]}) make {least} to {most} charges: there must be at"
            f" least one, and at most {MAX_CHARGES} have room."
        )
    return pairs[0], pairs[1]
