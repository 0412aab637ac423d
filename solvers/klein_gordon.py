"""Free scalar fields in a periodic box, the Klein-Gordon and the wave equation, exact in Fourier space, in float64.

    ∂ₜ²φ = ∇²φ − m²φ        (klein_gordon: c = 1, time in m/c, mass m in 1/m)
    ∂ₜ²φ = c²∇²φ            (wave: speed c in m/s)

Each wave k is an oscillator of frequency ω, ω² = k² + m² or c²k², so with π = ∂ₜφ a step of any length is exact:

    φ_k(t+Δt) = cos(ωΔt) φ_k + sin(ωΔt)/ω π_k,   π_k(t+Δt) = −ω sin(ωΔt) φ_k + cos(ωΔt) π_k

(the mean of φ drifts with π where ω = 0), for all waves that the grid can show. Energy, the mean of
(π² + |∇φ|² + m²φ²)/2 or (π² + c²|∇φ|²)/2, is conserved to rounding, in each wave.

Initial state: φ smooth noise of variance 1, π an independent one, each wave times its ω, so that waves run in all
directions alike.

Good values, the defaults: 64 cells along a box of 1 m, steps of 0.05 (m/c or s), mass 10 per m or speed 1 m/s, scale
0.15 m. A longer step costs nothing and turns the waves further.

The Klein-Gordon equation is invariant under the Lorentz group of R^{1,q}. ``plane_waves`` has solutions that are not
periodic, as functions on spacetime, and boosts them.

Source: Gordon, "Der Comptoneffekt nach der Schrödingerschen Theorie" (1926); Peskin and Schroeder, "An introduction to
quantum field theory" (1995), section 2.3, for the field as oscillators.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import Solver, State
from cliffsteer.solvers.noise import smooth_noise
from cliffsteer.solvers.options import choice, draw, number, require_values, value_or_range, whole
from cliffsteer.solvers.registry import register
from cliffsteer.stepper import Parameters

MASS = 10.0
SPEED = 1.0
PHASE = 1e6
"""Largest ωΔt: rounding takes 1e-16 of it off the phase of a wave in each step."""


class FreeField(Solver):
    """Base of the two: a field φ whose waves are oscillators of the frequencies that a subclass gives.

    States hold ``phi`` and ``pi`` (batch, *grid) at the cell centres.

    Args:
        parameter: the parameter field, a scalar.
        parameter_range: lowest and highest value that each trajectory draws its own from, uniformly; or None.
        units: of φ and π.
        resolution: number of cells along each side.
        size: length of each side, in m.
        dt: time step.
        dim: number of axes.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: amplitudes fall off as |k|^(−2·smoothness).
    """

    def __init__(
        self,
        parameter: Field,
        parameter_range: tuple[float, float] | None,
        units: tuple[str, str],
        resolution: int,
        size: float,
        dt: float,
        dim: int,
        scale: float,
        smoothness: float,
    ):
        resolution = whole("resolution", resolution, 4, " of cells a side")
        dim = choice("dim", dim, (1, 2, 3))
        size = number("size", size, "m", above=0)
        self.dt = number("dt", dt, self.time_unit, above=0)
        self.scale = number("scale", scale, "m", above=0)
        self.smoothness = number("smoothness", smoothness, above=0)
        self.spec = FieldSpec((1,) * dim, [Field("phi", 0, units[0]), Field("pi", 0, units[1]), parameter])
        self.grid = Grid((resolution,) * dim, size / resolution, "periodic", "m")
        self._range = parameter_range
        self._axes = tuple(range(-dim, 0))
        waves = [torch.fft.fftfreq(resolution, dtype=torch.float64)] * (dim - 1)
        waves.append(torch.fft.rfftfreq(resolution, dtype=torch.float64))
        k = 2 * math.pi * resolution / size * torch.stack(torch.meshgrid(*waves, indexing="ij"))
        self._squares = k.square().sum(0)
        self._turns: dict[tuple, tuple[Tensor, ...]] = {}
        self._check_phase(torch.tensor(parameter_range or parameter.default, dtype=torch.float64))

    time_unit: ClassVar[str]

    @property
    def parameter(self) -> Field:
        """The parameter field."""
        return self.spec.parameters[0]

    @abstractmethod
    def squared_frequencies(self, squares: Tensor, parameter: Tensor) -> Tensor:
        """Squares of the frequencies ω, from k² and the parameter, which broadcast against each other."""

    def initial(self, seeds: Sequence[int]) -> State:
        """Smooth noise; the parameter drawn where the options ask for it."""
        seeds = [int(seed) for seed in seeds]
        drawn = [self._draw(torch.Generator().manual_seed(seed)) for seed in seeds or [0]]  # one, to know the shapes
        phi, pi, parameter = (torch.stack(parts)[: len(seeds)] for parts in zip(*drawn, strict=True))
        return State({"phi": phi, "pi": pi}, {self.parameter.name: parameter})

    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            ValueError: a parameter that is not finite, negative, or too large for the time step.
        """
        phi, pi = state.values["phi"], state.values["pi"]
        if not len(phi):  # no trajectory, nothing to move
            return state
        cos, to_phi, to_pi = self._turn(state.parameters)
        a, b = torch.fft.rfftn(torch.stack([phi, pi], 1), dim=self._axes).unbind(1)
        later = torch.stack([torch.addcmul(cos * a, to_phi, b), torch.addcmul(cos * b, to_pi, a)], 1)
        phi, pi = torch.fft.irfftn(later, s=self.grid.shape, dim=self._axes).unbind(1)
        return State({"phi": phi, "pi": pi}, state.parameters)

    def observe(self, state: State) -> Tensor:
        """The fields φ and π as frames (batch, 1, blade, *grid), float64."""
        return self.spec.pack({name: values[:, None] for name, values in state.values.items()})

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The state that the last frame shows."""
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].to(torch.float64))
        values = {name: value[:, 0, 0] for name, value in fields.items()}
        return State(values, self.read_parameters(parameters, len(frames), frames.device))

    def frequencies(self, parameters: Parameters) -> Tensor:
        """Frequencies ω of the waves, in radians per time, shape (batch, *mode), those of ``torch.fft.rfftn``."""
        values = parameters[self.parameter.name]
        require_values(self.parameter.name, values, self.parameter.unit, low=0)
        spread = values.view(-1, *[1] * self.grid.dim)
        squared = self.squared_frequencies(self._squares.to(values.device), spread)
        return squared.clamp_min(1e-300).sqrt()  # at zero the root would have no derivative

    def _turn(self, parameters: Parameters) -> tuple[Tensor, ...]:
        """cos(ωΔt), sin(ωΔt)/ω and −ω sin(ωΔt), (batch, *mode); those of the last parameters are kept."""
        values = parameters[self.parameter.name]
        learned = torch.is_grad_enabled() and values.requires_grad
        key = (str(values.device), *values.flatten().tolist())
        if learned or key not in self._turns:
            omega = self.frequencies(parameters)
            self._check_phase(values)
            per_omega = torch.sinc(omega * (self.dt / math.pi)) * self.dt  # torch's sinc(x) is sin(πx)/(πx)
            factors = torch.cos(omega * self.dt), per_omega, -omega.square() * per_omega
            # Complex, since products of a complex and a real tensor copy the real one each time.
            factors = tuple(factor.to(torch.complex128) for factor in factors)
            if learned:  # part of a graph that is used once
                return factors
            self._turns = {key: factors}
        return self._turns[key]

    def _check_phase(self, values: Tensor) -> None:
        """Raise a ValueError when a step turns the shortest wave further than its phase can be told."""
        if not values.numel():
            return
        value, k = values.detach().max(), self._squares.max().to(values.device)
        phase = float(self.squared_frequencies(k, value).sqrt()) * self.dt
        if not phase <= PHASE:
            raise ValueError(
                f"`{self.parameter.name}` (={float(value):g} {self.parameter.unit}) is too large for `dt` (={self.dt:g}"
                f" {self.time_unit}): a step turns the shortest wave by {phase:.3g}, and beyond {PHASE:g} rounding"
                " hides its phase; take a smaller one of them."
            )

    def conserved(self, frames: Tensor, parameters: Parameters | None = None) -> dict[str, Tensor]:
        """The energy of each frame, (batch, time); nothing where the parameter was drawn and is not given."""
        if parameters is None and self._range is not None:
            return {}
        return {"energy": self.energy(self.restore_all(frames, parameters)).view(frames.shape[:2])}

    def energy(self, state: State) -> Tensor:
        """Mean of (π² + ω²φ²)/2 over the domain, each wave with its ω, shape (batch,)."""
        phi, pi = (
            torch.fft.rfftn(state.values[name], dim=self._axes, norm="ortho").abs().square() for name in ("phi", "pi")
        )
        squares = pi + self.frequencies(state.parameters).square() * phi
        last = torch.arange(squares.shape[-1], device=squares.device)
        n = self.grid.shape[-1]
        weight = torch.where((last == 0) | (2 * last == n), 1.0, 2.0)  # waves that stand for their conjugate as well
        return (weight * squares).flatten(1).sum(1) / (2 * math.prod(self.grid.shape))

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        parameter = draw(self._range, self.parameter.default[0], generator)
        phi, other = (smooth_noise(self.grid, self.scale, self.smoothness, generator) for _ in range(2))
        omega = self.frequencies({self.parameter.name: parameter[None]})[0]
        pi = torch.fft.irfftn(omega * torch.fft.rfftn(other, dim=self._axes), s=self.grid.shape, dim=self._axes)
        return phi, pi, parameter


@register("klein_gordon")
class KleinGordon(FreeField):
    """Klein-Gordon equation, a free scalar field with mass in a periodic box; 1D, 2D or 3D, exact.

    States hold ``phi`` and ``pi`` = ∂φ/∂t (batch, *grid) at the cell centres. Times are in m/c.

    Args:
        resolution: number of cells along each side.
        size: length of each side, in m.
        dt: time step, in m/c.
        dim: number of axes.
        mass: the inverse of the reduced Compton wavelength, in 1/m; default 10.
        mass_range: instead of ``mass``: lowest and highest; each trajectory draws its own, uniformly.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: amplitudes fall off as |k|^(−2·smoothness).

    Raises:
        ValueError: an option out of range.

    Example:
        >>> solver = KleinGordon(resolution=32)
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames, {"mass": 2.0}).shape
        torch.Size([2, 1, 8, 32, 32])
    """

    name: ClassVar[str] = "klein_gordon"
    difficulty: ClassVar[str] = (
        "Waves of all lengths run at their own speeds, so the phase of each must be right; nothing decays, and errors"
        " do not either. With a range of masses the dispersion must be read from the parameter."
    )
    time_unit: ClassVar[str] = "m/c"

    def __init__(
        self,
        resolution: int = 64,
        size: float = 1.0,
        dt: float = 0.05,
        dim: int = 2,
        mass: float | None = None,
        mass_range: Sequence[float] | None = None,
        scale: float = 0.15,
        smoothness: float = 1.0,
    ):
        mass, drawn = value_or_range("mass", mass, mass_range, MASS, "1/m", low=0)
        parameter = Field("mass", 0, "1/m", "parameter", (mass,))
        super().__init__(parameter, drawn, ("1", "1/m"), resolution, size, dt, dim, scale, smoothness)

    def squared_frequencies(self, squares: Tensor, parameter: Tensor) -> Tensor:
        """The dispersion relation ω² = k² + m²."""
        return squares + parameter.square()


@register("wave")
class Wave(FreeField):
    """Wave equation for a scalar field in a periodic box; 1D, 2D or 3D, exact.

    States hold ``phi`` and ``pi`` = ∂φ/∂t (batch, *grid) at the cell centres.

    Args:
        resolution: number of cells along each side.
        size: length of each side, in m.
        dt: time step, in s.
        dim: number of axes.
        speed: of the waves, in m/s; default 1.
        speed_range: instead of ``speed``: lowest and highest; each trajectory draws its own, uniformly.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: amplitudes fall off as |k|^(−2·smoothness).

    Raises:
        ValueError: an option out of range.

    Example:
        >>> solver = Wave(resolution=32)
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames, {"speed": 2.0}).shape
        torch.Size([2, 1, 8, 32, 32])
    """

    name: ClassVar[str] = "wave"
    difficulty: ClassVar[str] = (
        "Nothing decays, so errors do not either: the phase of each wave must stay right for as long as the rollout is."
    )
    time_unit: ClassVar[str] = "s"

    def __init__(
        self,
        resolution: int = 64,
        size: float = 1.0,
        dt: float = 0.05,
        dim: int = 2,
        speed: float | None = None,
        speed_range: Sequence[float] | None = None,
        scale: float = 0.15,
        smoothness: float = 1.0,
    ):
        speed, drawn = value_or_range("speed", speed, speed_range, SPEED, "m/s", low=0)
        parameter = Field("speed", 0, "m/s", "parameter", (speed,))
        super().__init__(parameter, drawn, ("1", "1/s"), resolution, size, dt, dim, scale, smoothness)

    def squared_frequencies(self, squares: Tensor, parameter: Tensor) -> Tensor:
        """The dispersion relation ω² = c²k²."""
        return squares * parameter.square()
