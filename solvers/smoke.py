"""Smoke: incompressible Navier-Stokes with buoyant smoke in a closed box, on a MAC grid, batched, in float64.

    ∂ₜu + (u·∇)u = −∇p + ν∇²u + s b,   ∇·u = 0,   ∂ₜs + u·∇s = 0

with density of smoke s (dimensionless), velocity u, viscosity ν and buoyancy b, a vector: where smoke rises to.

One step is that of the classic PhiFlow script, operation for operation (``smoke_phiflow`` runs it in PhiFlow):

    s ← advect(s, u);  u ← advect(u, u) + Δt s b;  u ← u + Δt ν ∇²u;  u ← project(u)

with semi-Lagrangian advection, explicit diffusion and an exact pressure projection. Smoke is centred; beyond a wall it
has the value next to the wall. Velocities are zero on walls and beyond; the tangential ones therefore vanish one cell
beyond the last sample, half a cell behind the wall, so the no-slip condition holds to first order in h. Smoke stays
within its initial bounds but is not conserved: at these Courant numbers (up to 5, 7, 10 and 21 at 32, 48, 64 and 128
cells a side) semi-Lagrangian advection loses 8 to 31 % of it in 24 steps of the default set-up (four seeds at each of
these resolutions).

Initial state: fluid at rest, smoke |f| with smooth noise f of variance 1 (``noise.smooth_noise``).

The step ``dt`` is one physical time for all resolutions, so that frames of different grids show the same evolution and
a coarser grid has a smaller Courant number |u|Δt/h; scaling Δt with h instead would make the first-order splitting of
buoyancy and pressure the largest error. Finer grids than 128 cells a side need a smaller one, for diffusion.

Good values, the defaults: 32 to 128 cells a side of 32 m, 1.5 s per step, viscosity 0.01 m²/s, buoyancy 0.5 m/s².

Sources: Stam, "Stable fluids" (1999); Holl and Thuerey, "Φ-Flow" (2024); the set-up follows the smoke data of Gupta and
Brandstetter, "Towards multi-spatiotemporal-scale generalized PDE modeling" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import Solver, State
from cliffsteer.solvers.mac import MacGrid, average
from cliffsteer.solvers.noise import smooth_noise
from cliffsteer.solvers.options import choice, number, number_range, value_or_range, vector, whole
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.semi_lagrangian import departure, interpolate
from cliffsteer.stepper import Parameters

VISCOSITY = 0.01
BUOYANCY = 0.5


@register("smoke")
class Smoke(Solver):
    """Buoyant smoke in a closed box, incompressible Navier-Stokes in 2D or 3D; native, fast.

    States hold ``density`` (batch, *grid) and, for each axis i, ``velocity_e{i}``: the velocity across the inner faces
    of axis i, n − 1 of them along that axis.

    Args:
        resolution: number of cells along each side.
        size: length of each side, in m.
        dt: time step, in s.
        buoyancy: acceleration of smoke of density 1, one component per axis, in m/s²; default 0.5 along the last axis.
        buoyancy_range: instead of ``buoyancy``: lowest and highest magnitude, in m/s². Each trajectory draws its own,
            uniformly, and a direction, isotropically.
        viscosity: kinematic viscosity, in m²/s; default 0.01.
        viscosity_range: instead of ``viscosity``: lowest and highest; each trajectory draws its own, uniformly.
        scale: of the initial smoke: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial smoke: amplitudes fall off as |k|^(−2·smoothness).
        dim: number of axes.

    Raises:
        ValueError: an option out of range, or diffusion that is unstable with this ``dt``.

    Example:
        >>> solver = Smoke(resolution=32)
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames, {"buoyancy": (0.3, 0.4)}).shape
        torch.Size([2, 1, 4, 32, 32])
    """

    name: ClassVar[str] = "smoke"

    def __init__(
        self,
        resolution: int = 128,
        size: float = 32.0,
        dt: float = 1.5,
        buoyancy: Sequence[float] | None = None,
        buoyancy_range: Sequence[float] | None = None,
        viscosity: float | None = None,
        viscosity_range: Sequence[float] | None = None,
        scale: float = 11.0,
        smoothness: float = 6.0,
        dim: int = 2,
    ):
        resolution = whole("resolution", resolution, 4, " of cells a side")
        dim = choice("dim", dim, (2, 3), ": in one dimension nothing incompressible can move")
        size = number("size", size, "m", above=0)
        self.dt = number("dt", dt, "s", above=0)
        self.scale = number("scale", scale, "m", above=0)
        self.smoothness = number("smoothness", smoothness, above=0)
        if buoyancy is not None and buoyancy_range is not None:
            raise ValueError(
                f"`buoyancy` (={buoyancy}) and `buoyancy_range` (={buoyancy_range}) exclude each other: give one of"
                " them."
            )
        self.buoyancy_range = number_range("buoyancy", buoyancy_range, low=0)
        viscosity, self.viscosity_range = value_or_range(
            "viscosity", viscosity, viscosity_range, VISCOSITY, "m²/s", low=0
        )
        lift = vector("buoyancy", (*[0.0] * (dim - 1), BUOYANCY) if buoyancy is None else buoyancy, dim, "m/s²")
        self.spec = FieldSpec(
            (1,) * dim,
            [
                Field("density", 0, "1"),
                Field("velocity", 1, "m/s"),
                Field("buoyancy", 1, "m/s^2", "parameter", lift),
                Field("viscosity", 0, "m^2/s", "parameter", (viscosity,)),
            ],
        )
        self.grid = Grid((resolution,) * dim, size / resolution, "no_slip", "m")
        self.mac = MacGrid(self.grid)
        self._face_names = tuple(f"velocity_e{i + 1}" for i in range(dim))
        self.check_viscosity(torch.tensor(self.viscosity_range or (viscosity,), dtype=torch.float64))

    def initial(self, seeds: Sequence[int]) -> State:
        """Fluid at rest, smoke |f| with smooth noise f; buoyancy and viscosity drawn where the options ask for it."""
        seeds = [int(seed) for seed in seeds]
        drawn = [self._draw(torch.Generator().manual_seed(seed)) for seed in seeds or [0]]  # one, to know the shapes
        density, buoyancy, viscosity = (torch.stack(parts)[: len(seeds)] for parts in zip(*drawn, strict=True))
        rest = self.mac.to_faces(density.new_zeros(len(seeds), self.grid.dim, *self.grid.shape))
        values = {"density": density, **dict(zip(self._face_names, rest, strict=True))}
        return State(values, {"buoyancy": buoyancy, "viscosity": viscosity})

    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            ValueError: a parameter that is not finite, a viscosity that is negative or too large to be stable.
        """
        viscosity = state.parameters["viscosity"]
        self.check_viscosity(viscosity)
        if not len(viscosity):  # no trajectory, nothing to move
            return state
        faces = self.faces(state)
        density, moved = self._advect(state.values["density"], faces)
        buoyancy = state.parameters["buoyancy"]
        _require_finite("buoyancy", buoyancy)
        diffused = []
        for axis, face in enumerate(moved):
            lift = average(density, axis + 1) * _spread(buoyancy[:, axis], face)
            pushed = face + self.dt * lift
            diffused.append(pushed + self.dt * _spread(viscosity[:, 0], face) * self._laplacian(pushed))
        return self.with_values(state, density, self.mac.project(diffused))

    def observe(self, state: State) -> Tensor:
        """Density, and velocity averaged from faces to centres, as frames (batch, 1, blade, *grid), float64."""
        velocity = self.mac.to_centers(self.faces(state))
        return self.spec.pack({"density": state.values["density"][:, None], "velocity": velocity[:, None]})

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The state whose velocity is divergence-free and, averaged to centres, closest to the last frame's.

        For frames of this solver it is the state they came from, to the rounding of the frames (``MacGrid.to_faces``):
        16 steps through frames stay within 3e-13 of 16 through states in float64, within 5e-7 in float32. (Averaging
        back to the faces instead smooths the velocity at each step: 14 to 26 % off after 16. With 1 % of white noise on
        the centred velocity, one step is 0.3 to 0.4 % off either way.)
        """
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].to(torch.float64))
        faces = self.mac.to_faces(fields["velocity"][:, 0])
        state = State({}, self.read_parameters(parameters, len(frames), frames.device))
        return self.with_values(state, fields["density"][:, 0, 0], faces)

    def faces(self, state: State) -> tuple[Tensor, ...]:
        """The face velocities of a state, one tensor per axis."""
        return tuple(state.values[name] for name in self._face_names)

    def with_values(self, state: State, density: Tensor, faces: Sequence[Tensor]) -> State:
        """A state with the parameters of ``state`` and these values."""
        return State({"density": density, **dict(zip(self._face_names, faces, strict=True))}, state.parameters)

    def check_viscosity(self, viscosity: Tensor) -> None:
        """Raise a ValueError unless ν is finite, 0 <= ν and explicit diffusion is stable, ν Δt / h² <= 1 / (2·dim)."""
        _require_finite("viscosity", viscosity)
        if not viscosity.numel():
            return
        low, high = (float(v) for v in viscosity.detach().aminmax())
        if not low >= 0:
            raise ValueError(f"`viscosity` (={low:g} m²/s) must not be negative.")
        h, limit = min(self.grid.spacing), 1 / (2 * self.grid.dim)
        ratio = high * self.dt / h**2
        if ratio > limit * (1 + 1e-9):
            raise ValueError(
                f"`viscosity` (={high:g} m²/s) is unstable with `dt` (={self.dt:g} s) on cells of {h:g} m: ν·dt/h² ="
                f" {ratio:.3g} must not exceed {limit:.3g}; take `dt` <= {limit * h**2 / high:.3g}, a lower"
                " `resolution` or a lower viscosity."
            )

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        density = smooth_noise(self.grid, self.scale, self.smoothness, generator).abs()
        direction = torch.randn(self.grid.dim, dtype=torch.float64, generator=generator)
        magnitude, fraction = torch.rand(2, dtype=torch.float64, generator=generator)
        buoyancy = torch.tensor(self.spec["buoyancy"].default, dtype=torch.float64)
        if self.buoyancy_range:
            low, high = self.buoyancy_range
            buoyancy = direction / direction.norm() * (low + (high - low) * magnitude)
        viscosity = torch.tensor(self.spec["viscosity"].default, dtype=torch.float64)
        if self.viscosity_range:
            low, high = self.viscosity_range
            viscosity = (low + (high - low) * fraction).reshape(1)
        return density, buoyancy, viscosity

    def _advect(self, density: Tensor, faces: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Density and face velocities carried along for one ``dt``."""
        dim, spacing = self.grid.dim, self.grid.spacing
        walled = self.mac.pad(faces)
        steps = [average(w, i + 1) * (self.dt / h) for i, (w, h) in enumerate(zip(walled, spacing, strict=True))]
        carried = interpolate(density, departure(self.grid.shape, steps, [0] * dim))
        moved = []
        for axis, face in enumerate(faces):
            there = [
                face * (self.dt / spacing[i]) if i == axis else average(step, axis + 1) for i, step in enumerate(steps)
            ]
            moved.append(interpolate(pad(face, [1, 1] * dim), departure(face.shape[1:], there, [1] * dim)))
        return carried, moved

    def _laplacian(self, face: Tensor) -> Tensor:
        """∇² with zero samples on walls and beyond."""
        dim = self.grid.dim
        return sum(
            pad(face, [0, 0] * (dim - 1 - axis) + [1, 1]).diff(n=2, dim=axis + 1) / h**2
            for axis, h in enumerate(self.grid.spacing)
        )


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _require_finite(name: str, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise ValueError(f"`{name}` (={values.tolist()}) must be finite for each trajectory.")
