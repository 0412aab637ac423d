"""Shallow water: a rotating layer of water in a periodic plane, pseudo-spectral, waves exact, in float64.

    ∂ₜu + (u·∇)u + f ẑ×u = −g∇h,   ∂ₜh + ∇·(hu) = 0        and −ν₄∇⁴ on both

with height of the surface h in m, velocity u in m/s, gravity g (a scalar parameter, m/s²) and the Coriolis parameter f
(a pseudoscalar, 1/s: reflections change its sign, and ẑ×u = (−u₂, u₁)). The mean height H is conserved to rounding.

In vector-invariant form, with η = h − H and the vorticity ζ,

    ∂ₜu = −f ẑ×u − g∇η − ζ ẑ×u − ∇|u|²/2,   ∂ₜη = −H∇·u − ∇·(ηu)

the linear part has for each wave vector k a balanced mode at rest and two inertia-gravity waves of frequencies ±ω,
ω² = f² + gHk². In these modes it is diagonal: waves of small amplitude are exact, their speed does not limit the time
step, and balanced ones stand. The rest is of fourth order (ETDRK4). Products are 2/3 dealiased. Energy, the mean of
(h|u|² + gh²)/2, is conserved to the errors of time step and truncation but for the damping: ν₄ = damping / k_max⁴,
where k_max is the largest wave number kept along an axis and ``damping`` the rate at which that wave decays.

Seeds decide trajectories whatever else is in the batch: initial states bit by bit, later ones to rounding.

Initial state: a geostrophic flow, f ẑ×u = −g∇h, of a noisy stream function with rms ``speed`` (where f = 0 the surface
over it is flat), and on top a noisy bump of the surface with rms ``bump``, which radiates inertia-gravity waves.

Good values, the defaults: mid-latitudes, a sea of 1000 m in a plane of 10 000 km, an hour per step; Rossby number
|ζ|/f about 0.2; 24 hours are within 3e-5 of the limit of small time steps. Waves as high as H break, and the solution
loses its smoothness: raise ``damping`` then.

Sources: Vallis, "Atmospheric and oceanic fluid dynamics" (2017), chapter 3; Canuto et al., "Spectral methods in fluid
dynamics" (1988), for the method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import Solver, State, UnstableError
from cliffsteer.solvers.exponential import ETDRK4, check_courant
from cliffsteer.solvers.inertia_gravity import WaveModes
from cliffsteer.solvers.noise import smooth_noise
from cliffsteer.solvers.options import draw, number, require_values, value_or_range, whole
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.spectral_grid import SpectralGrid
from cliffsteer.stepper import Parameters

CORIOLIS = 1e-4
GRAVITY = 9.81


@register("shallow_water")
class ShallowWater(Solver):
    """Rotating shallow water in a periodic plane, with exact inertia-gravity waves; 2D.

    States hold ``height`` (batch, *grid) and ``velocity`` (batch, axis, *grid) at the cell centres.

    Args:
        resolution: number of cells along each side.
        size: length of each side, in m.
        dt: time step, in s.
        substeps: steps of the integrator in each ``dt``.
        coriolis: Coriolis parameter, in 1/s; default 1e-4.
        coriolis_range: instead of ``coriolis``: lowest and highest, of any sign; each trajectory draws its own,
            uniformly.
        gravity: in m/s²; default 9.81.
        gravity_range: instead of ``gravity``: lowest and highest.
        depth: mean height of the initial surface, in m.
        speed: rms of the initial geostrophic flow, in m/s.
        bump: rms of the initial bumps of the surface, in m.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: amplitudes fall off as |k|^(−2·smoothness).
        damping: rate at which the shortest wave kept along an axis decays, in 1/s; others by ∇⁴.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> solver = ShallowWater(resolution=32)
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames, {"coriolis": -1e-4}).shape
        torch.Size([2, 1, 4, 32, 32])
    """

    name: ClassVar[str] = "shallow_water"
    difficulty: ClassVar[str] = (
        "Two kinds of motion at once: vortices in geostrophic balance, which last for weeks, and inertia-gravity waves,"
        " which cross many cells in one step. A small error of a balanced state radiates as waves. The sense of"
        " rotation is in the Coriolis parameter, a pseudoscalar: a map that takes it for a scalar is right on one"
        " hemisphere only."
    )

    def __init__(
        self,
        resolution: int = 128,
        size: float = 1e7,
        dt: float = 3600.0,
        substeps: int = 2,
        coriolis: float | None = None,
        coriolis_range: Sequence[float] | None = None,
        gravity: float | None = None,
        gravity_range: Sequence[float] | None = None,
        depth: float = 1000.0,
        speed: float = 10.0,
        bump: float = 5.0,
        scale: float = 1.5e6,
        smoothness: float = 2.0,
        damping: float = 2e-5,
    ):
        resolution = whole("resolution", resolution, 8, " of cells a side")
        size = number("size", size, "m", above=0)
        self.dt = number("dt", dt, "s", above=0)
        self.substeps = whole("substeps", substeps, 1)
        coriolis, self.coriolis_range = value_or_range("coriolis", coriolis, coriolis_range, CORIOLIS, "1/s")
        gravity, self.gravity_range = value_or_range("gravity", gravity, gravity_range, GRAVITY, "m/s²", above=0)
        self.depth = number("depth", depth, "m", above=0)
        self.speed = number("speed", speed, "m/s", low=0)
        self.bump = number("bump", bump, "m", low=0)
        self.scale = number("scale", scale, "m", above=0)
        self.smoothness = number("smoothness", smoothness, above=0)
        self.damping = number("damping", damping, "1/s", low=0)
        self.spec = FieldSpec(
            (1, 1),
            [
                Field("height", 0, "m"),
                Field("velocity", 1, "m/s"),
                Field("coriolis", 2, "1/s", "parameter", (coriolis,)),
                Field("gravity", 0, "m/s^2", "parameter", (gravity,)),
            ],
        )
        self.grid = Grid((resolution, resolution), size / resolution, "periodic", "m")
        self.spectral = SpectralGrid(self.grid)
        self._k_max = 2 * math.pi * self.spectral.highest[0] / size

    def initial(self, seeds: Sequence[int]) -> State:
        """Geostrophic flow and bumps of the surface; parameters drawn where the options ask for it.

        Raises:
            UnstableError: the bottom is not covered everywhere.
        """
        seeds = [int(seed) for seed in seeds]
        drawn = [self._draw(torch.Generator().manual_seed(seed)) for seed in seeds or [0]]  # one, to know the shapes
        x, coriolis, gravity = (torch.stack(parts)[: len(seeds)] for parts in zip(*drawn, strict=True))
        self._require_covered("bump", x[:, 0])
        return State({"height": x[:, 0], "velocity": x[:, 1:]}, {"coriolis": coriolis, "gravity": gravity})

    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            ValueError: a parameter that is not finite, or gravity that is not positive.
            UnstableError: a bottom that is not covered everywhere, or a flow too fast for the time step.
        """
        height, velocity = state.values["height"], state.values["velocity"]
        coriolis, gravity = state.parameters["coriolis"], state.parameters["gravity"]
        if not len(height):  # no trajectory, nothing to move
            return state
        require_values("coriolis", coriolis, "1/s")
        require_values("gravity", gravity, "m/s²", above=0)
        self._require_covered("height", height)
        check_courant(velocity, self.spectral, self.dt, self.substeps)
        depth = height.mean((1, 2))
        modes = WaveModes(self.spectral, coriolis[:, 0], gravity[:, 0], depth)
        damping = self.damping * (self.spectral.squares(height.device) / self._k_max**2).square()
        integrator = ETDRK4(modes.rates - damping, self.dt / self.substeps)
        eta = (height - depth[:, None, None])[:, None]
        w = modes.analyse(self.spectral.forward(torch.cat([eta, velocity], 1)))
        for _ in range(self.substeps):
            w = integrator.step(w, lambda w: modes.analyse(self._nonlinear(modes.synthesise(w))))
        x = self.spectral.inverse(modes.synthesise(w))
        return State({"height": x[:, 0] + depth[:, None, None], "velocity": x[:, 1:]}, state.parameters)

    def observe(self, state: State) -> Tensor:
        """Height and velocity as frames (batch, 1, blade, *grid), float64."""
        return self.spec.pack({name: values[:, None] for name, values in state.values.items()})

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The state with the waves of the last frame that the solver keeps.

        Raises:
            ValueError: a height that is not positive everywhere.
        """
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].to(torch.float64))
        x = self.spectral.inverse(self.spectral.forward(torch.cat([fields["height"], fields["velocity"]], 2)[:, 0]))
        self._require_covered("frames", x[:, 0])
        values = {"height": x[:, 0], "velocity": x[:, 1:]}
        return State(values, self.read_parameters(parameters, len(frames), frames.device))

    def conserved(self, frames: Tensor, parameters: Parameters | None = None) -> dict[str, Tensor]:
        """Of each frame, (batch, time): the mean height as ``mass``, and ``energy`` above that of still water.

        Energy is left out where there is damping, or gravity was drawn and is not given.
        """
        state = self.restore_all(frames, parameters)
        depth = state.values["height"].mean((1, 2))
        found = {"mass": depth.view(frames.shape[:2])}
        if not self.damping and (parameters is not None or self.gravity_range is None):
            still = state.parameters["gravity"][:, 0] * depth.square() / 2
            found["energy"] = (self.energy(state) - still).view(frames.shape[:2])
        return found

    def energy(self, state: State) -> Tensor:
        """Mean of (h|u|² + gh²)/2 over the domain, in m³/s², shape (batch,)."""
        h, u = state.values["height"], state.values["velocity"]
        gravity = state.parameters["gravity"][:, :, None]
        return (h * u.square().sum(1) + gravity * h.square()).mean((1, 2)) / 2

    def _nonlinear(self, c: Tensor) -> Tensor:
        """−∇·(ηu) and −ζ ẑ×u − ∇|u|²/2 of coefficients (batch, η and velocity, *mode)."""
        spectral = self.spectral
        ik = spectral.derivatives(c.device)
        vorticity = ik[0] * c[:, 2] - ik[1] * c[:, 1]
        eta, u, v, zeta = spectral.inverse(torch.cat([c, vorticity[:, None]], 1)).unbind(1)
        products = torch.stack([eta * u, eta * v, zeta * v, -zeta * u, (u.square() + v.square()) / 2], 1)
        products = spectral.forward(products)
        flux, force, bernoulli = products[:, :2], products[:, 2:4], products[:, 4:]
        return torch.cat([-spectral.divergence(flux)[:, None], force - ik * bernoulli], 1)

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Height and velocity (3, *grid), Coriolis parameter and gravity, (1,) each."""
        coriolis = draw(self.coriolis_range, self.spec["coriolis"].default[0], generator)
        gravity = draw(self.gravity_range, self.spec["gravity"].default[0], generator)
        noise = [smooth_noise(self.grid, self.scale, self.smoothness, generator) for _ in range(2)]
        psi, bump = self.spectral.forward(torch.stack(noise))
        ik = self.spectral.derivatives()
        flow = torch.stack([-ik[1] * psi, ik[0] * psi])
        factor = self.speed / self.spectral.mean_product(flow, flow).sum().sqrt()
        eta = coriolis / gravity * factor * psi + self.bump / self.spectral.mean_product(bump, bump).sqrt() * bump
        x = self.spectral.inverse(torch.cat([eta[None], factor * flow]))
        x[0] += self.depth
        return x, coriolis, gravity

    @staticmethod
    def _require_covered(name: str, height: Tensor) -> None:
        covered = height.flatten(1).amin(1) > 0  # False for NaN
        if not bool(covered.all()):
            raise UnstableError(
                f"`{name}` gives heights down to {float(height.min()):.4g} m: shallow water must cover the bottom"
                " everywhere; take a larger `depth`, or less `speed` and `bump`.",
                ~covered,
            )
