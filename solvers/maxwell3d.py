"""Maxwell's equations in a homogeneous medium, periodic, in space: exact in Fourier space, batched, in float64.

    ∂ₜ(εE) = ∇·B/μ − Z₀σ E,   ∂ₜB = −∇∧E,   ∇·E = 0,   ∇∧B = 0

with electric field E, a vector, and magnetic field B, a bivector (``maxwell`` has the units and the signs). The wave of
wave vector k turns on its own. With G = −iB, κ² = k²/(εμ), α = Z₀σ/(2ε) and ω² = κ² − α²,

    E ← exp(−αt) [(cos ωt − α S) E − S/(εμ) k·G]
    G ← exp(−αt) [(cos ωt + α S) G − S k∧E],         S = sin(ωt)/ω

(cosh and sinh where α > κ), for every t exactly, so ``dt`` is bound by nothing. Without σ the energy ∫(εE² + B²/μ)/2
stays as it is, and neither field ever gets a divergence. This is the pseudo-spectral analytical time-domain (PSATD)
method without currents. Nyquist's waves, whose direction of travel a grid of even sides cannot tell, are left out. E
and B live at the cell centres.

Initial state: E and B independent, each smooth noise (``noise.smooth_noise`` for each component) less its longitudinal
part, with a root mean square of 1 V/m.

Good values, the defaults: 32 cells along a box of 1 m in vacuum, 1/16 m/c, two cells, per step; permittivities of 1 to
4 and conductivities up to 1e-3 S/m beside it.

Source: Haber et al., "Advances in electromagnetic simulation techniques" (1973), as told by Vay, Haber and Godfrey, "A
domain decomposition method for pseudo-spectral electromagnetic simulations of plasmas" (2013), section 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.solvers.base import Solver, State
from cliffsteer.solvers.maxwell import FIELD_UNIT, IMPEDANCE, TIME_UNIT, Media, box, check_media
from cliffsteer.solvers.noise import smooth_noise
from cliffsteer.solvers.options import number
from cliffsteer.solvers.registry import register
from cliffsteer.stepper import Parameters


@register("maxwell3d")
class Maxwell3d(Solver):
    """Electromagnetic waves in a homogeneous medium, periodic, 3D Maxwell equations; exact in time and space.

    States hold the Fourier coefficients of E (``electric``) and of −iB (``magnetic``), which turn into each other by
    real factors: shape (batch, component, 2, *k), real and imaginary parts, k the half spectrum of ``torch.fft.rfftn``.

    Args:
        resolution: number of cells along each side; one number or one per axis.
        size: length of each side, in m; one number or one per axis.
        dt: time step, in m/c.
        permittivity: relative permittivity ε; default 1.
        permittivity_range: instead of it: lowest and highest; each trajectory draws its own, uniformly.
        permeability: relative permeability μ; default 1.
        permeability_range: instead of it: lowest and highest.
        conductivity: σ, in S/m; default 0.
        conductivity_range: instead of it: lowest and highest.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: amplitudes fall off as |k|^(−2·smoothness).

    Raises:
        ValueError: an option out of range.

    Example:
        >>> solver = Maxwell3d(resolution=16)
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames, {"permittivity": 2.0}).shape
        torch.Size([2, 1, 8, 16, 16, 16])
    """

    name: ClassVar[str] = "maxwell3d"
    time_unit: ClassVar[str] = TIME_UNIT

    def __init__(
        self,
        resolution: int | Sequence[int] = 32,
        size: float | Sequence[float] = 1.0,
        dt: float = 0.0625,
        permittivity: float | None = None,
        permittivity_range: Sequence[float] | None = None,
        permeability: float | None = None,
        permeability_range: Sequence[float] | None = None,
        conductivity: float | None = None,
        conductivity_range: Sequence[float] | None = None,
        scale: float = 0.5,
        smoothness: float = 2.0,
    ):
        self.grid = box(resolution, size)
        self.dt = number("dt", dt, TIME_UNIT, above=0.0)
        self.scale = number("scale", scale, "m", above=0.0)
        self.smoothness = number("smoothness", smoothness, above=0.0)
        self.media = Media.of_options(
            permittivity=permittivity,
            permittivity_range=permittivity_range,
            permeability=permeability,
            permeability_range=permeability_range,
            conductivity=conductivity,
            conductivity_range=conductivity_range,
        )
        fields = [Field("electric", 1, FIELD_UNIT), Field("magnetic", 2, FIELD_UNIT), *self.media.fields()]
        self.spec = FieldSpec((1,) * self.grid.dim, fields)

    def initial(self, seeds: Sequence[int]) -> State:
        """Divergence-free noise of 1 V/m (root mean square) in both fields; media drawn where options ask for it."""
        drawn = [self._draw(torch.Generator().manual_seed(int(seed))) for seed in seeds or [0]]  # one, for the shapes
        frames = torch.stack([frame for frame, _ in drawn])[: len(seeds)]
        media = {name: torch.stack([m[name] for _, m in drawn])[: len(seeds)] for name in drawn[0][1]}
        return self._normalised(self.restore(frames, media))

    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            ValueError: a parameter that is not finite or out of range.
        """
        check_media(state.parameters)
        electric, magnetic = state.values["electric"], state.values["magnetic"]
        if not len(electric):
            return state
        rows = torch.cat([state.parameters[name] for name in ("permittivity", "permeability", "conductivity")], 1)
        here = (self.grid.shape, self.grid.spacing, self.dt)
        if torch.is_grad_enabled() and rows.requires_grad:  # part of a graph that is used once
            turn = _turn(*here, rows)
        else:
            alike = bool((rows == rows[0]).all())
            turn = _kept_turn(*here, tuple(map(tuple, (rows[:1] if alike else rows).tolist())), str(electric.device))
        keep_electric, keep_magnetic, to_electric, to_magnetic = turn
        turned = {
            "electric": _contract(to_electric, magnetic, keep_electric * electric),
            "magnetic": _wedge(to_magnetic, electric, keep_magnetic * magnetic),
        }
        return State(turned, state.parameters)

    def observe(self, state: State) -> Tensor:
        """E and cB at the cell centres as frames (batch, 1, blade, *grid), float64."""
        (real, imaginary), (real_turned, imaginary_turned) = (
            state.values[name].unbind(2) for name in ("electric", "magnetic")
        )
        electric = self._inverse(torch.complex(real, imaginary))
        magnetic = self._inverse(torch.complex(-imaginary_turned, real_turned))  # B = iG
        return self.spec.pack({"electric": electric, "magnetic": magnetic})

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The state of the divergence-free fields without Nyquist's waves that are closest to the last frame's.

        For frames of this solver it is the state they came from, to the rounding of the frames.
        """
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].to(torch.float64))
        electric, magnetic = (self._forward(fields[name][:, 0]) for name in ("electric", "magnetic"))
        electric = torch.stack([electric.real, electric.imag], 2)
        turned = torch.stack([magnetic.imag, -magnetic.real], 2)  # G = −iB
        # Wedge (of E) and contraction (of B) with k do not see longitudinal parts. Nor does k = 0 see the mean.
        unit = _unit_vectors(self.grid.shape, self.grid.spacing, str(frames.device))
        values = {
            "electric": _contract(unit, _wedge(unit, electric), _mean_alone(electric), -1),
            "magnetic": _wedge(unit, _contract(unit, turned), _mean_alone(turned), -1),
        }
        return State(values, self.read_parameters(parameters, len(frames), frames.device))

    def conserved(self, frames: Tensor, parameters: Parameters | None = None) -> dict[str, Tensor]:
        """The energy of each frame, (batch, time).

        Nothing where some medium conducts, or media were drawn and are not given.
        """
        if parameters is None and any(self.media.ranges.values()):
            return {}
        state = self.restore_all(frames, parameters)
        if bool(state.parameters["conductivity"].any()):
            return {}
        return {"energy": self.energy(state).view(frames.shape[:2])}

    def energy(self, state: State) -> Tensor:
        """Mean energy density (εE² + B²/μ)/2 of each trajectory in units of ε₀, in (V/m)², shape (batch,)."""
        fields = self.spec.unpack(self.observe(state))
        electric, magnetic = (fields[name].square().sum(2).flatten(1).mean(1) for name in ("electric", "magnetic"))
        media = {name: value[:, 0] for name, value in state.parameters.items()}
        return (media["permittivity"] * electric + magnetic / media["permeability"]) / 2

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        algebra = self.spec.algebra
        count = algebra.grade_size(1) + algebra.grade_size(2)
        noise = [smooth_noise(self.grid, self.scale, self.smoothness, generator) for _ in range(count)]
        electric, magnetic = torch.stack(noise).split((algebra.grade_size(1), algebra.grade_size(2)))
        frame = self.spec.pack({"electric": electric[None, None], "magnetic": magnetic[None, None]})[0]
        return frame, self.media.draw(generator)

    def _normalised(self, state: State) -> State:
        fields = self.spec.unpack(self.observe(state))
        values = {}
        for name, value in state.values.items():
            mean_square = fields[name].square().sum(2).flatten(1).mean(1)
            values[name] = value / mean_square.sqrt().view(-1, *[1] * (value.ndim - 1))
        return State(values, state.parameters)

    def _forward(self, fields: Tensor) -> Tensor:
        """Coefficients (batch, component, *k) of fields (batch, component, *grid)."""
        if not len(fields):  # the transform refuses to do nothing
            return fields.new_zeros(0, fields.shape[1], *_half(self.grid.shape), dtype=torch.complex128)
        return torch.fft.rfftn(fields, dim=tuple(range(-self.grid.dim, 0)), norm="forward")

    def _inverse(self, coefficients: Tensor) -> Tensor:
        """Fields (batch, 1, component, *grid) of coefficients (batch, component, *k)."""
        if not len(coefficients):
            return coefficients.real.new_zeros(0, 1, coefficients.shape[1], *self.grid.shape)
        axes = tuple(range(-self.grid.dim, 0))
        return torch.fft.irfftn(coefficients, s=self.grid.shape, dim=axes, norm="forward")[:, None]


def _mean_alone(coefficients: Tensor) -> Tensor:
    """Coefficients (batch, component, 2, *k) with all but those of k = 0 set to zero."""
    out = torch.zeros_like(coefficients)
    out.flatten(3)[..., 0] = coefficients.flatten(3)[..., 0]
    return out


def _wedge(k: Tensor, vector: Tensor, start: Tensor | None = None, sign: float = 1.0) -> Tensor:
    """Value of start + sign · k∧v, (k∧v)_ij = k_i v_j − k_j v_i; vectors on axis 1, k with its components on axis 0."""
    pairs = list(itertools.combinations(range(len(k)), 2))
    out = vector.new_zeros(len(vector), len(pairs), *vector.shape[2:]) if start is None else start
    for place, (i, j) in enumerate(pairs):
        out[:, place].addcmul_(k[i], vector[:, j], value=sign).addcmul_(k[j], vector[:, i], value=-sign)
    return out


def _contract(k: Tensor, bivector: Tensor, start: Tensor | None = None, sign: float = 1.0) -> Tensor:
    """Value of start + sign · k·b, (k·b)_i = Σ_j k_j b_ij; bivectors on axis 1, k with its components on axis 0."""
    out = bivector.new_zeros(len(bivector), len(k), *bivector.shape[2:]) if start is None else start
    for place, (i, j) in enumerate(itertools.combinations(range(len(k)), 2)):
        out[:, i].addcmul_(k[j], bivector[:, place], value=sign)
        out[:, j].addcmul_(k[i], bivector[:, place], value=-sign)
    return out


def _half(shape: tuple[int, ...]) -> tuple[int, ...]:
    return *shape[:-1], shape[-1] // 2 + 1


@lru_cache(maxsize=8)
def _wave_vectors(shape: tuple[int, ...], spacing: tuple[float, ...], device: str) -> Tensor:
    """Vectors k of the half spectrum, (dim, *k), in 1/m; zero on Nyquist's waves, those of two cells along an axis."""
    axes = [torch.fft.fftfreq(n, h, dtype=torch.float64) for n, h in zip(shape, spacing, strict=True)]
    axes[-1] = torch.fft.rfftfreq(shape[-1], spacing[-1], dtype=torch.float64)
    k = 2 * math.pi * torch.stack(torch.meshgrid(*axes, indexing="ij"))
    for axis, n in enumerate(shape, 1):
        if n % 2 == 0:
            k.select(axis, n // 2).zero_()
    return k.to(device)


@lru_cache(maxsize=8)
def _unit_vectors(shape: tuple[int, ...], spacing: tuple[float, ...], device: str) -> Tensor:
    k = _wave_vectors(shape, spacing, device)
    norm = k.norm(dim=0)
    return k / torch.where(norm > 0, norm, 1.0)


@lru_cache(maxsize=2)
def _kept_turn(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    dt: float,
    media: tuple[tuple[float, float, float], ...],
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _turn(shape, spacing, dt, torch.tensor(media, dtype=torch.float64, device=device))


def _turn(
    shape: tuple[int, ...], spacing: tuple[float, ...], dt: float, media: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What E and G keep, shape (medium, 1, 1, *k), and what they get of each other, (dim, medium, 1, *k).

    Args:
        shape: of the grid.
        spacing: of the grid.
        dt: the time step.
        media: ε, μ and σ, shape (medium, 3).
    """
    k = _wave_vectors(shape, spacing, str(media.device))
    eps, mu, sigma = media.view(-1, 3, *[1] * len(shape)).unbind(1)
    kappa, alpha = k.square().sum(0) / (eps * mu), IMPEDANCE * sigma / (2 * eps)
    omega = (kappa - alpha.square()).abs().clamp_min(1e-300).sqrt()  # at zero the root would have no derivative
    slow = torch.exp(-dt * kappa / (omega + alpha).clamp_min(1e-300))  # exp((ω − α)t), without cancellation
    fast = torch.expm1(-2 * dt * omega)
    damped = torch.exp(-alpha * dt)
    swings = kappa > alpha.square()
    cosine = torch.where(swings, damped * torch.cos(omega * dt), slow * (1 + fast / 2))
    sine = torch.where(swings, damped * torch.sin(omega * dt), -slow * fast / 2) / omega
    keep_electric, keep_magnetic = (cosine + sign * alpha * sine for sign in (-1, 1))
    to_electric, to_magnetic = -sine / (eps * mu) * k[:, None], -sine * k[:, None]
    return keep_electric[:, None, None], keep_magnetic[:, None, None], to_electric[:, :, None], to_magnetic[:, :, None]
