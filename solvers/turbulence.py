"""Turbulence: incompressible Navier-Stokes with a passive scalar in a periodic box, pseudo-spectral, in float64.

    ∂ₜu + (u·∇)u = −∇p + ν∇²u + f,   ∇·u = 0,   ∂ₜs + u·∇s = κ∇²s

with velocity u in m/s, viscosity ν and diffusivity κ in m²/s, and a passive scalar s (dimensionless, with mean 0). The
force f is absent ("none": decaying turbulence, symmetric under all rotations, reflections and translations), or

    f = a sin(q·(x − x_c)) − μu        ("kolmogorov")

a shear of amplitude a (a vector, m/s²) and wave vector q (1/m, whole waves per side), x_c the centre of the box, with
linear drag μ (1/s). Rotations and reflections about the centre then turn a and q along; a network whose layers commute
with translations sees the crests of the force only in the flow. The part of a along q is taken up by the pressure.

Fields are 2/3 dealiased Fourier series, the velocity projected onto divergence-free fields. Advection is
−∇·(uu − |u|²/n), whose trace is a pressure: n(n+1)/2 − 1 products to transform, the fewest known, where n is the
dimension. Friction and drag are exact, the rest is of fourth order in ``dt / substeps`` (ETDRK4). Energy obeys
dE/dt = −2νZ, with E the mean of |u|²/2 and Z of |∇∧u|²/2, to the error of the time step.

Seeds decide trajectories bit by bit, whatever else is in the batch (on one kind of processor).

Initial state: smooth noise of rms ``speed``, made divergence-free, and smooth noise of variance 1 for the scalar.

Good values, with k_max = 2π·m/size for the m = (resolution − 1) // 3 waves kept: eddies are resolved when the energy
spectrum at k_max has fallen far below its peak (after 2 s of the defaults by 8 orders of magnitude, by 5 with 64 cells
a side; in 3D after 1 s, with 32 cells, viscosity and diffusivity 0.02, by 3). A step is stable while
max Σᵢ|uᵢ| · k_max · dt / substeps stays below 2.8, which is checked; 20 steps of the defaults, but with 4 substeps,
are within 1.5e-5 of the limit of many.

Sources: Orszag and Patterson, "Numerical simulation of three-dimensional homogeneous isotropic turbulence" (1972);
Basdevant, "Technical improvements for direct numerical simulation of homogeneous three-dimensional turbulence" (1983),
for the products; Kochkov et al., "Machine learning-accelerated computational fluid dynamics" (2021), for the values of
the forced flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import Solver, State
from cliffsteer.solvers.exponential import ETDRK4, check_courant
from cliffsteer.solvers.noise import smooth_noise
from cliffsteer.solvers.options import choice, draw, number, require_values, value_or_range, whole
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.spectral_grid import SpectralGrid
from cliffsteer.stepper import Parameters

VISCOSITY = DIFFUSIVITY = 0.002
FORCE, FORCE_WAVES, DRAG = 0.3, 4, 0.1


@register("turbulence")
class Turbulence(Solver):
    """Incompressible Navier-Stokes and a passive scalar in a periodic box, 2D or 3D, decaying or forced.

    States hold ``scalar`` (batch, *grid) and ``velocity`` (batch, axis, *grid) at the cell centres.

    Args:
        resolution: number of cells along each side.
        size: length of each side, in m.
        dt: time step, in s.
        substeps: steps of the integrator in each ``dt``.
        dim: number of axes.
        viscosity: kinematic viscosity, in m²/s; default 0.002.
        viscosity_range: instead of ``viscosity``: lowest and highest; each trajectory draws its own, uniformly.
        diffusivity: of the scalar, in m²/s; default 0.002.
        diffusivity_range: instead of ``diffusivity``: lowest and highest.
        speed: rms of the initial velocity, in m/s.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: amplitudes fall off as |k|^(−2·smoothness).
        forcing: "none" or "kolmogorov"; the options below belong to the latter.
        force: amplitude, in m/s², along the first axis, waves along the second; default 0.3.
        force_range: instead of ``force``: lowest and highest. Each trajectory draws its own, uniformly, and two axes
            and a sign for amplitude and waves.
        force_waves: waves per side; default 4.
        drag: in 1/s; default 0.1.

    Raises:
        ValueError: an option out of range, or one of the forcing without it.

    Example:
        >>> solver = Turbulence(resolution=32, scale=1.5)
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames, {"viscosity": 0.01}).shape
        torch.Size([2, 1, 4, 32, 32])
    """

    name: ClassVar[str] = "turbulence"
    difficulty: ClassVar[str] = (
        "The flow is chaotic: after a few turnovers of its eddies (size over speed) no forecast follows the trajectory,"
        " and a model is judged by its spectra and statistics. Errors in the smallest eddies travel up the scales; the"
        " pressure, which keeps the velocity free of divergence, acts at any distance within one step."
    )

    def __init__(
        self,
        resolution: int = 128,
        size: float = 2 * math.pi,
        dt: float = 0.1,
        substeps: int = 6,
        dim: int = 2,
        viscosity: float | None = None,
        viscosity_range: Sequence[float] | None = None,
        diffusivity: float | None = None,
        diffusivity_range: Sequence[float] | None = None,
        speed: float = 1.0,
        scale: float = 1.0,
        smoothness: float = 2.0,
        forcing: str = "none",
        force: float | None = None,
        force_range: Sequence[float] | None = None,
        force_waves: int | None = None,
        drag: float | None = None,
    ):
        resolution = whole("resolution", resolution, 8, " of cells a side")
        dim = choice("dim", dim, (2, 3), ": in one dimension nothing incompressible can move")
        size = number("size", size, "m", above=0)
        self.dt = number("dt", dt, "s", above=0)
        self.substeps = whole("substeps", substeps, 1)
        self.speed = number("speed", speed, "m/s", above=0)
        self.scale = number("scale", scale, "m", above=0)
        self.smoothness = number("smoothness", smoothness, above=0)
        viscosity, self.viscosity_range = value_or_range(
            "viscosity", viscosity, viscosity_range, VISCOSITY, "m²/s", low=0
        )
        diffusivity, self.diffusivity_range = value_or_range(
            "diffusivity", diffusivity, diffusivity_range, DIFFUSIVITY, "m²/s", low=0
        )
        self.forced = choice("forcing", forcing, ("none", "kolmogorov")) == "kolmogorov"
        fields = [
            Field("scalar", 0, "1"),
            Field("velocity", 1, "m/s"),
            Field("viscosity", 0, "m^2/s", "parameter", (viscosity,)),
            Field("diffusivity", 0, "m^2/s", "parameter", (diffusivity,)),
        ]
        self.grid = Grid((resolution,) * dim, size / resolution, "periodic", "m")
        self.spectral = SpectralGrid(self.grid)
        if self.forced:
            fields += self._forcing_fields(force, force_range, force_waves, drag)
        else:
            given = {"force": force, "force_range": force_range, "force_waves": force_waves, "drag": drag}
            for option, value in given.items():
                if value is not None:
                    raise ValueError(f"`{option}` (={value}) has no meaning without forcing='kolmogorov'.")
        self.spec = FieldSpec((1,) * dim, fields)
        self._integrators: dict[tuple, ETDRK4] = {}

    def initial(self, seeds: Sequence[int]) -> State:
        """Smooth noise, divergence-free where it is the velocity; parameters drawn where the options ask for it."""
        seeds = [int(seed) for seed in seeds]
        drawn = [self._draw(torch.Generator().manual_seed(seed)) for seed in seeds or [0]]  # one, to know the shapes
        parameters = {name: torch.stack([d[1][name] for d in drawn])[: len(seeds)] for name in drawn[0][1]}
        return self._state(torch.stack([d[0] for d in drawn])[: len(seeds)], parameters)

    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            ValueError: a parameter that is not finite, a negative viscosity, diffusivity or drag, or a force whose
                waves do not fit into the box.
            UnstableError: a flow too fast for the time step.
        """
        if not len(state.values["scalar"]):  # no trajectory, nothing to move
            return state
        check_courant(state.values["velocity"], self.spectral, self.dt, self.substeps)
        integrator = self._integrator(state.parameters)
        force = self._force(state.parameters) if self.forced else None
        c = self.spectral.forward(torch.cat([state.values["scalar"][:, None], state.values["velocity"]], 1))
        for _ in range(self.substeps):
            c = integrator.step(c, lambda c: self._nonlinear(c, force))
        return self._state(self.spectral.inverse(c), state.parameters)

    def observe(self, state: State) -> Tensor:
        """Scalar and velocity as frames (batch, 1, blade, *grid), float64."""
        return self.spec.pack({name: values[:, None] for name, values in state.values.items()})

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The state with the waves of the last frame that the solver keeps, its velocity made divergence-free."""
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].to(torch.float64))
        samples = torch.cat([fields["scalar"][:, 0], fields["velocity"][:, 0]], 1)
        return self._state(self._kept(samples), self.read_parameters(parameters, len(frames), frames.device))

    # ------------------------------------------------------------------------------------------------- equations

    def _nonlinear(self, c: Tensor, force: Tensor | None) -> Tensor:
        """Advection and force of coefficients (batch, scalar and velocity, *mode)."""
        dim, spectral = self.grid.dim, self.spectral
        x = spectral.inverse(c)
        s, *u = x.unbind(1)
        mean_square = sum(v.square() for v in u) / dim
        products = [s * v for v in u]
        products += [u[i] * u[j] - mean_square if i == j else u[i] * u[j] for i, j in _pairs(dim)]
        fluxes = spectral.forward(torch.stack(products, 1))
        carried = -spectral.divergence(fluxes[:, :dim])
        acceleration = (_accelerations(self.grid, str(c.device)) * fluxes[:, dim:, None]).sum(1)
        return torch.cat([carried[:, None], acceleration if force is None else acceleration + force], 1)

    def _integrator(self, parameters: dict[str, Tensor]) -> ETDRK4:
        """The integrator for these parameters; the last one is kept."""
        linear = {"viscosity": "m²/s", "diffusivity": "m²/s"} | ({"drag": "1/s"} if self.forced else {})
        for name, unit in linear.items():
            require_values(name, parameters[name], unit, low=0)
        device = parameters["viscosity"].device
        key = (str(device), *(tuple(parameters[name].flatten().tolist()) for name in linear))
        learned = torch.is_grad_enabled() and any(parameters[name].requires_grad for name in linear)
        if learned or key not in self._integrators:
            squares = self.spectral.squares(device)
            diffusion = _spread(parameters["diffusivity"], self.grid.dim) * squares
            friction = _spread(parameters["viscosity"], self.grid.dim) * squares
            if self.forced:
                friction = friction + _spread(parameters["drag"], self.grid.dim)
            rates = torch.cat([diffusion, *[friction] * self.grid.dim], 1)
            integrator = ETDRK4(-rates, self.dt / self.substeps)
            if learned:  # part of a graph that is used once
                return integrator
            self._integrators = {key: integrator}
        return self._integrators[key]

    def _force(self, parameters: dict[str, Tensor]) -> Tensor:
        """Coefficients of a sin(q·(x − x_c)), divergence-free; shape (batch, axis, *mode)."""
        amplitude, wave = parameters["force"], parameters["force_wave"]
        require_values("force", amplitude, "m/s²")
        require_values("force_wave", wave, "1/m")
        extent = torch.tensor(self.grid.extent, dtype=torch.float64, device=wave.device)
        waves = wave * extent / (2 * math.pi)
        highest = torch.tensor(self.spectral.highest, device=wave.device)
        if bool(((waves - waves.round()).abs() > 1e-4).any()) or bool((waves.round().abs() > highest).any()):
            raise ValueError(
                f"`force_wave` (={wave.tolist()} 1/m) must be whole waves per side, 2π·m/{self.grid.extent[0]:g} m with"
                f" |m| <= {self.spectral.highest[0]} along each axis: here m = {waves.tolist()}."
            )
        x = self.grid.coordinates().to(wave.device) - extent.view(-1, *[1] * self.grid.dim) / 2
        phase = torch.tensordot(2 * math.pi / extent * waves.round(), x, ([1], [0]))
        return self.spectral.project(self.spectral.forward(_spread(amplitude, self.grid.dim) * phase.sin()[:, None]))

    # --------------------------------------------------------------------------------------------------- private

    def _state(self, x: Tensor, parameters: dict[str, Tensor]) -> State:
        return State({"scalar": x[:, 0], "velocity": x[:, 1:]}, parameters)

    def _kept(self, x: Tensor) -> Tensor:
        """What the solver keeps of scalar and velocity (batch, 1 + dim, *grid)."""
        c = self.spectral.forward(x)
        return self.spectral.inverse(torch.cat([c[:, :1], self.spectral.project(c[:, 1:])], 1))

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar and velocity on the grid, shape (1 + dim, *grid), and parameters."""
        parameters = {
            "viscosity": draw(self.viscosity_range, self.spec["viscosity"].default[0], generator),
            "diffusivity": draw(self.diffusivity_range, self.spec["diffusivity"].default[0], generator),
        }
        if self.forced:
            parameters |= self._draw_force(generator)
        noise = [smooth_noise(self.grid, self.scale, self.smoothness, generator) for _ in range(1 + self.grid.dim)]
        x = self._kept(torch.stack(noise)[None])[0]
        x[1:] *= self.speed / x[1:].square().sum(0).mean().sqrt()
        return x, parameters

    def _draw_force(self, generator: torch.Generator) -> dict[str, Tensor]:
        dim, drag = self.grid.dim, torch.tensor(self.spec["drag"].default, dtype=torch.float64)
        fixed = {name: torch.tensor(self.spec[name].default, dtype=torch.float64) for name in ("force", "force_wave")}
        magnitude = draw(self.force_range, float(fixed["force"].norm()), generator)
        axes = torch.randperm(dim, generator=generator)[:2]
        sign = 2 * torch.randint(2, (), generator=generator) - 1
        if self.force_range is None:
            return {**fixed, "drag": drag}
        basis = torch.eye(dim, dtype=torch.float64)
        wave = fixed["force_wave"].norm() * basis[axes[1]]
        return {"force": sign * magnitude * basis[axes[0]], "force_wave": wave, "drag": drag}

    def _forcing_fields(
        self, force: float | None, force_range: Sequence[float] | None, force_waves: int | None, drag: float | None
    ) -> list[Field]:
        force, self.force_range = value_or_range("force", force, force_range, FORCE, "m/s²", low=0)
        waves = whole("force_waves", FORCE_WAVES if force_waves is None else force_waves, 1)
        highest = self.spectral.highest[0]
        if waves > highest:
            raise ValueError(f"`force_waves` (={waves}) must not exceed {highest}, the most waves per side kept.")
        drag = number("drag", DRAG if drag is None else drag, "1/s", low=0)
        rest = (0.0,) * (self.grid.dim - 2)
        return [
            Field("force", 1, "m/s^2", "parameter", (force, 0.0, *rest)),
            Field("force_wave", 1, "1/m", "parameter", (0.0, 2 * math.pi * waves / self.grid.extent[1], *rest)),
            Field("drag", 0, "1/s", "parameter", (drag,)),
        ]


def _spread(values: Tensor, dim: int) -> Tensor:
    """Values (batch, component) with ``dim`` axes added."""
    return values.view(*values.shape, *[1] * dim)


def _pairs(dim: int) -> list[tuple[int, int]]:
    """Components of a symmetric, traceless tensor: all i <= j but the last, which is minus the other diagonal ones."""
    return [(i, j) for i in range(dim) for j in range(i, dim)][:-1]


@lru_cache(maxsize=8)
def _accelerations(grid: Grid, device: str) -> Tensor:
    """What each of these components adds to the divergence-free acceleration −∇·T, shape (pair, axis, *mode)."""
    spectral, accelerations = SpectralGrid(grid), []
    for i, j in _pairs(grid.dim):
        tensor = torch.zeros(grid.dim, grid.dim, dtype=torch.complex128)
        tensor[i, j] = tensor[j, i] = 1
        if i == j:
            tensor[-1, -1] = -1
        accelerations.append(-spectral.project(torch.tensordot(tensor, spectral.derivatives(), 1)))
    return torch.stack(accelerations).to(device)
