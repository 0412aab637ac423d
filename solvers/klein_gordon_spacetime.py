"""Free scalar fields on spacetime R^{1,q}: blocks (t, *x) of sums of plane waves, exact, boosted at will, in float64.

    ∂ₜ²φ = ∇²φ − m²φ,   φ(x) = Re Σ_j a_j exp(−iK_j·x),   K·x = ωt − k·x,   ω² = k² + m²        (c = 1)

Frames hold φ and its gradient e^μ ∂_μφ, a vector of spacetime, at the points of a block (``plane_waves``). There is no
box, so Lorentz's group is a symmetry without exceptions: a boost of speed ``boost``, in a direction that a trajectory
draws, moves the wave vectors, K -> ΛK, and nothing else. A seed stands for one physical field; the same seed with
another ``boost`` is that field as a moving observer samples it. So a map that is trained on fields at rest is tested on
moving ones: an equivariant one is as good there, as far as its sampling on a lattice allows.

Initial state: ``waves`` waves in random directions, wave numbers uniform between those of the two ``wavelengths``,
amplitudes normal, φ of variance 1.

Good values, the defaults: blocks of 32 points along 1 m and as many in time, 8 waves of lengths from 0.3 to 1 m, mass
10 per m; boosts up to 0.6 leave them all resolved.

Source: Peskin and Schroeder, "An introduction to quantum field theory" (1995), sections 2.2 and 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.solvers.base import State
from cliffsteer.solvers.klein_gordon import MASS
from cliffsteer.solvers.options import choice, draw, number, read_pair, value_or_range, whole
from cliffsteer.solvers.plane_waves import PlaneWaves, boosted, random_waves, spacetime_block
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.spacetime import SpacetimeSolver
from cliffsteer.stepper import Parameters

WAVELENGTHS = (0.3, 1.0)


@register("klein_gordon_spacetime")
class KleinGordonSpacetime(SpacetimeSolver):
    """Klein-Gordon equation on the spacetime R^{1,1}, R^{1,2} or R^{1,3}, blocks (t, *x) of boosted plane waves; exact.

    States hold ``time`` (batch,), the start of the block in m/c, ``vectors`` K (batch, wave, 1 + axis) in radians per m
    and ``amplitudes`` a (batch, wave), complex.

    Args:
        resolution: number of cells along each side of the window.
        size: length of each side, in m.
        block: points in time of a block; default: ``resolution``.
        courant: c Δt over the size of a cell. It bounds nothing.
        dim: number of axes in space.
        mass: the inverse of the reduced Compton wavelength, in 1/m; default 10.
        mass_range: instead of ``mass``: lowest and highest; each trajectory draws its own, uniformly.
        waves: number of plane waves.
        wavelengths: shortest and longest in the frame at rest, in m; default (0.3, 1.0).
        boost: speed of the observer, in c, below 1; the direction is drawn for each trajectory.

    Raises:
        ValueError: an option out of range, or waves too short for the grid after the boost.

    Example:
        >>> solver = KleinGordonSpacetime(resolution=8, wavelengths=(0.6, 1.2))
        >>> solver.observe(solver.initial([0])).shape
        torch.Size([1, 1, 8, 8, 8, 8])
    """

    name: ClassVar[str] = "klein_gordon_spacetime"
    difficulty: ClassVar[str] = (
        "Waves enter the window from outside it, so its edges cannot be known; in the middle each wave must keep its"
        " phase. Boosted fields are made of longer and shorter waves than those at rest."
    )

    def __init__(
        self,
        resolution: int = 32,
        size: float = 1.0,
        block: int | None = None,
        courant: float = 1.0,
        dim: int = 2,
        mass: float | None = None,
        mass_range: Sequence[float] | None = None,
        waves: int = 8,
        wavelengths: Sequence[float] | None = None,
        boost: float = 0.0,
    ):
        cells = whole("resolution", resolution, 4, " of cells a side")
        points = cells if block is None else whole("block", block, 1, " of points in time")
        dim = choice("dim", dim, (1, 2, 3))
        size, courant = number("size", size, "m", above=0), number("courant", courant, above=0)
        super().__init__(points, (cells,) * dim, size / cells, courant, "open", "m", "1")
        mass, self.mass_range = value_or_range("mass", mass, mass_range, MASS, "1/m", low=0)
        self.waves = whole("waves", waves, 1)
        self.wavelengths = read_pair("wavelengths", WAVELENGTHS if wavelengths is None else wavelengths, "m", above=0)
        self.boost = number("boost", boost, "c", low=0)
        if self.boost >= 1:
            raise ValueError(f"`boost` (={boost}) must be below 1, the speed of light.")
        self.spec = FieldSpec(
            (1, *[-1] * dim),
            [Field("phi", 0), Field("gradient", 1, "1/m"), Field("mass", 0, "1/m", "parameter", (mass,))],
        )
        self._check_resolved(max(self.mass_range or (mass,)))

    def initial(self, seeds: Sequence[int]) -> State:
        """Random waves, boosted; the mass drawn where the options ask for it."""
        drawn = [self._draw(torch.Generator().manual_seed(int(seed))) for seed in seeds or [0]]  # one, for the shapes
        vectors, amplitudes, mass = (torch.stack(parts)[: len(seeds)] for parts in zip(*drawn, strict=True))
        time = torch.zeros(len(seeds), dtype=torch.float64)
        return State({"time": time, "vectors": vectors, "amplitudes": amplitudes}, {"mass": mass})

    def advance(self, state: State) -> State:
        """The state one block later."""
        return State(state.values | {"time": state.values["time"] + self.dt}, state.parameters)

    def observe(self, state: State) -> Tensor:
        """The block that begins at the state's time, the window about x = 0; (batch, 1, blade, t, *x), float64."""
        time = state.values["time"]
        out = time.new_zeros(len(time), 1, self.spec.n_blades, *self.grid.shape)
        for i, waves in enumerate(self.fields(state)):
            center = (float(time[i]) + self.dt / 2, *[0.0] * (self.grid.dim - 1))
            out[i] = spacetime_block([waves], self.grid, center)[0]
        return out

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> NoReturn:
        """Refuse: what enters the window later is not in the frames.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"`frames` of solver {self.name!r} show a window, but not the waves that enter it later, so it cannot go on"
            " from them: start from `initial` and go on with `advance`, or take 'klein_gordon', in a periodic box."
        )

    def fields(self, state: State) -> list[PlaneWaves]:
        """The field of each trajectory, as a function on spacetime."""
        return [PlaneWaves(*parts) for parts in zip(state.values["vectors"], state.values["amplitudes"], strict=True)]

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        axes = self.grid.dim - 1
        mass = draw(self.mass_range, self.spec["mass"].default[0], generator)
        waves = random_waves(axes, self.waves, generator, float(mass), self.wavelengths)
        direction = torch.randn(axes, dtype=torch.float64, generator=generator)
        moved = boosted(waves, (self.boost * direction / direction.norm()).tolist())
        return moved.vectors, moved.amplitudes, mass

    def _check_resolved(self, mass: float) -> None:
        """Raise a ValueError unless the grid has two points or more for each wave and period of the boosted fields."""
        k = 2 * math.pi / self.wavelengths[0]
        omega = math.hypot(k, mass)
        gamma = 1 / math.sqrt(1 - self.boost**2)
        shortest = 2 * math.pi / max(gamma * (k + self.boost * omega), 1e-300)
        period = 2 * math.pi / (gamma * (omega + self.boost * k))
        step, cell = self.grid.spacing[:2]
        if shortest < 2 * cell or period < 2 * step:
            raise ValueError(
                f"`wavelengths` (={tuple(self.wavelengths)}) come down to waves of {shortest:.3g} m and periods of"
                f" {period:.3g} m/c with `boost` (={self.boost:g}) and masses up to {mass:g}/m: the grid, with cells of"
                f" {cell:.3g} m and steps of {step:.3g} m/c, needs twice as much; take a higher `resolution`, longer"
                " waves or a smaller `courant`."
            )
