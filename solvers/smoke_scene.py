"""Smoke around an obstacle and out of open sides, run by PhiFlow: the step of `smoke` in a scene.

    ∂ₜu + (u·∇)u = −∇p + ν∇²u + s b,   ∇·u = 0,   ∂ₜs + u·∇s = 0   outside the obstacle, u = 0 in it

with density of smoke s, velocity u, viscosity ν and buoyancy b, on the MAC grid. In a closed box of no-slip walls and
without obstacle it is `smoke_phiflow`. What a scene adds:

- **Obstacle**: a disc or sphere at rest. A cell whose centre it covers is solid: no smoke in it, no flow through its
  faces, and the pressure is solved around it. As behind a no-slip wall the velocity in it is zero, and PhiFlow fades
  velocities on faces that are less than 0.7 cells outside. A path of the semi-Lagrangian advection that leads back into
  the obstacle ends on its surface, and there solid cells count as filled with the smoke just outside: smoke neither
  passes through the obstacle nor gets lost at it. Long steps cost about what they cost in the empty box: after 9 s in
  steps of 1.5 s smoke is 12 % off and velocity 18 %, without obstacle 13 and 14 % (48² cells).
- **Slip walls**: no friction; velocities along them go on unchanged behind them.
- **Open sides**: the pressure is zero half a cell beyond, and what flows in has the velocity next to the side and no
  smoke. Where flow enters at one side and leaves by the opposite one, nothing brakes it, and the zero pressure even
  feeds it (its energy grew by 20 to 46 % in 24 s without smoke, for any ``dt``); with one open side it dies away.

Where the obstacle is enters twice: as parameter fields ``obstacle`` (a vector, from the centre of the box to its own)
and ``obstacle_radius`` (a scalar), which turn along with the data and alone decide what the solver does, and as the
dynamic field ``solid``, the fraction of each cell that is solid, constant in time, in which a network sees it.

Good values: those of ``smoke``, 32 cells or more a side of 32 m, and an obstacle of radius 4 to 6 m.

Sources: Stam, "Stable fluids" (1999); Bridson, "Fluid simulation for computer graphics" (2015), chapters 4 and 5, for
solid cells; Holl and Thuerey, "Φ-Flow: differentiable simulations for PyTorch, TensorFlow and Jax" (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import State
from cliffsteer.solvers.options import draw, number, number_range, require_values, vector
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.scene_grid import SOLID, SceneGrid
from cliffsteer.solvers.smoke_phiflow import SmokePhiFlow
from cliffsteer.stepper import Parameters

KINDS = ("no_slip", "slip", "open")
MARGIN = 1 / 8
"""Of the side: obstacles at a drawn place keep this distance from the sides."""


@register("smoke_scene")
class SmokeScene(SmokePhiFlow):
    """Buoyant smoke around a disc or sphere and with open or slip sides, 2D or 3D, run by PhiFlow.

    States hold those of ``Smoke``, with faces on open sides too. Frames hold the field ``solid``, and there are the
    parameters ``obstacle`` and ``obstacle_radius``, only with one of the options ``obstacle_radius`` and
    ``obstacle_radius_range``; without them the spec is that of ``Smoke``.

    Args:
        boundary: "no_slip", "slip" or "open" for all sides, or one per axis, or a pair (low, high) per axis.
        obstacle: centre of the obstacle relative to the centre of the box, one component per axis, in m; default: each
            trajectory draws its own, uniformly, an eighth of the side or more between obstacle and sides.
        obstacle_radius: in m, one cell or more, or 0 for none.
        obstacle_radius_range: instead of ``obstacle_radius``: lowest, one cell or more, and highest; each trajectory
            draws its own, uniformly.
        options: those of ``SmokePhiFlow``. Initial smoke, buoyancy and viscosity are those of ``Smoke`` for each seed.

    Raises:
        ValueError: as ``SmokePhiFlow``; a side that is neither wall nor open, an obstacle smaller than a cell or less
            than a cell away from a side.

    Example:
        >>> solver = SmokeScene(("no_slip", ("no_slip", "open")), resolution=32, obstacle_radius=4.0)
        >>> state = solver.initial([0, 1])
        >>> solver.step(solver.observe(state), state.parameters).shape  # doctest: +SKIP
        torch.Size([2, 1, 8, 32, 32])
    """

    name: ClassVar[str] = "smoke_scene"
    way_out: ClassVar[str] = ""

    def __init__(
        self,
        boundary: Any = "no_slip",
        obstacle: Sequence[float] | None = None,
        obstacle_radius: float | None = None,
        obstacle_radius_range: Sequence[float] | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.grid = Grid(self.grid.shape, self.grid.spacing, boundary, self.grid.unit)
        for axis, sides in enumerate(self.grid.boundary):
            if not set(sides) <= set(KINDS):
                raise ValueError(f"`boundary` on axis {axis} (={sides}) must be of the kinds {', '.join(KINDS)}.")
        self.scene = SceneGrid(self.grid)
        self.has_obstacle = obstacle_radius is not None or obstacle_radius_range is not None
        if self.has_obstacle:
            self._add_obstacle(obstacle, obstacle_radius, obstacle_radius_range)
        elif obstacle is not None:
            raise ValueError(f"`obstacle` (={obstacle}) has no meaning without `obstacle_radius` or its range.")

    def initial(self, seeds: Sequence[int]) -> State:
        """Fluid at rest, smoke |f| with smooth noise f outside the obstacle; parameters drawn where options ask."""
        seeds = [int(seed) for seed in seeds]
        drawn = [self._draw(torch.Generator().manual_seed(seed)) for seed in seeds or [0]]  # one, to know the shapes
        density, *parameters = (torch.stack(parts)[: len(seeds)] for parts in zip(*drawn, strict=True))
        names = [field.name for field in self.spec.parameters]
        state = State({}, dict(zip(names, parameters, strict=True)))
        return self.with_values(state, self._outside(state, density), self.scene.rest(len(seeds)))

    def advance(self, state: State) -> State:
        """The state one ``dt`` later, by PhiFlow.

        Raises:
            ValueError: as in ``SmokePhiFlow``, or an obstacle that is not finite, too small or not in the box.
        """
        self.check_obstacle(state.parameters)
        return super().advance(state)

    def observe(self, state: State) -> Tensor:
        """Density, velocity averaged from faces to centres, solid fraction, as (batch, 1, blade, *grid), float64."""
        fields = {"density": state.values["density"], "velocity": self.scene.to_centers(self.faces(state))}
        if self.has_obstacle:
            fields["solid"] = self.scene.fraction(*self._obstacle(state))
        return self.spec.pack({name: values[:, None] for name, values in fields.items()})

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The state with a divergence-free velocity whose averages at the centres are close to the last frame's.

        The obstacle is that of the parameters; the field ``solid`` is not read. For frames of this solver it is the
        state that they came from (``SceneGrid.to_faces``, and ``MacGrid.to_faces`` in a closed box without obstacle)
        but for the pressure solve's tolerance and, in a box open all round, the checkerboard that averages to zero.

        Raises:
            ValueError: frames that are not finite, an obstacle as in ``advance``.
        """
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].to(torch.float64))
        state = State({}, self.read_parameters(parameters, len(frames), frames.device))
        self.check_obstacle(state.parameters)
        solid, velocity = self._solid(state), fields["velocity"][:, 0]
        closed = not any(side for sides in self.scene.open for side in sides)
        if closed and not bool(solid.any()):
            faces = self.mac.to_faces(velocity)
        else:
            faces = self.scene.to_faces(velocity, self.scene.passable(solid))
        return self.with_values(state, self._outside(state, fields["density"][:, 0, 0]), faces)

    def check_obstacle(self, parameters: dict[str, Tensor]) -> None:
        """Raise a ValueError unless each radius is 0 or at least a cell, and each obstacle a cell off the sides."""
        if not self.has_obstacle or not len(parameters["obstacle"]):
            return
        center, radius = parameters["obstacle"], parameters["obstacle_radius"]
        require_values("obstacle", center, "m")
        require_values("obstacle_radius", radius, "m", low=0)
        h, half = max(self.grid.spacing), min(self.grid.extent) / 2
        small = (radius[:, 0] > 0) & (radius[:, 0] < h * (1 - 1e-9))
        if bool(small.any()):
            raise ValueError(
                f"`obstacle_radius` (={float(radius[small][0]):g} m) must be 0 or at least one cell, {h:g} m: choose a"
                " larger one or a higher `resolution`."
            )
        reach = center.abs().amax(1) + radius[:, 0] + h
        outside = (radius[:, 0] > 0) & (reach > half * (1 + 1e-9))
        if bool(outside.any()):
            place = ", ".join(f"{x:g}" for x in center[outside][0].tolist())
            raise ValueError(
                f"`obstacle` (=({place}) m) with `obstacle_radius` (={float(radius[outside][0]):g} m) must stay one"
                f" cell ({h:g} m) inside the box, which reaches {half:g} m from its centre."
            )

    # ------------------------------------------------------------------------------------------------- obstacle

    def _add_obstacle(self, center: Any, radius: float | None, radii: Any) -> None:
        """Read its options, and add its fields to the spec."""
        if radius is not None and radii is not None:
            raise ValueError(
                f"`obstacle_radius` (={radius}) and `obstacle_radius_range` (={radii}) exclude each other: give one."
            )
        fixed = None if radius is None else number("obstacle_radius", radius, "m", low=0)
        self.obstacle_radius_range = number_range("obstacle_radius", radii, low=max(self.grid.spacing))
        self._fixed_obstacle = None
        if center is not None:
            self._fixed_obstacle = vector("obstacle", center, self.grid.dim, "m")
        self.spec = FieldSpec(
            self.spec.algebra.signature,
            [
                *self.spec.dynamic,
                Field("solid", 0, "1"),
                *self.spec.parameters,
                Field("obstacle", 1, "m", "parameter", self._fixed_obstacle),
                Field("obstacle_radius", 0, "m", "parameter", None if fixed is None else (fixed,)),
            ],
        )
        self._radius = fixed
        for r in (fixed,) if radii is None else self.obstacle_radius_range:
            room = self._room(r)
            if self._fixed_obstacle is None and room < 0:
                raise ValueError(
                    f"`obstacle_radius` (={r:g} m) leaves no room to draw a place from: it must not exceed"
                    f" {r + room:g} m, an eighth of the side off all sides; or give its centre, `obstacle`."
                )
            place = torch.tensor([self._fixed_obstacle or (0.0,) * self.grid.dim], dtype=torch.float64)
            self.check_obstacle({"obstacle": place, "obstacle_radius": torch.tensor([[r]], dtype=torch.float64)})

    def _room(self, radius: float) -> float:
        """How far from the centre of the box, along each axis, a place may be drawn."""
        side = min(self.grid.extent)
        return side / 2 - radius - max(MARGIN * side, *self.grid.spacing)

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        drawn = super()._draw(generator)
        if not self.has_obstacle:
            return drawn
        radius = draw(self.obstacle_radius_range, self._radius or 0.0, generator)
        place = 2 * torch.rand(self.grid.dim, dtype=torch.float64, generator=generator) - 1
        center = place * self._room(float(radius))
        if self._fixed_obstacle is not None:
            center = torch.tensor(self._fixed_obstacle, dtype=torch.float64)
        return *drawn, center, radius

    def _obstacle(self, state: State) -> tuple[Tensor, Tensor]:
        return state.parameters["obstacle"], state.parameters["obstacle_radius"]

    def _solid(self, state: State) -> Tensor:
        """Which cells are solid, bool, (batch, *grid)."""
        if self.has_obstacle:
            return self.scene.solid(*self._obstacle(state))
        first = next(iter(state.parameters.values()))
        return torch.zeros(len(first), *self.grid.shape, dtype=torch.bool, device=first.device)

    def _outside(self, state: State, density: Tensor) -> Tensor:
        return density.masked_fill(self._solid(state), 0.0)

    # -------------------------------------------------------------------------------------------------- PhiFlow

    def _extrapolations(self, phi: SimpleNamespace) -> tuple[Any, Any]:
        kinds = phi.math.extrapolation
        slip = kinds.combine_by_direction(normal=kinds.ZERO, tangential=kinds.BOUNDARY)
        velocity = {"no_slip": kinds.ZERO, "slip": slip, "open": kinds.BOUNDARY}
        smoke = {"no_slip": kinds.BOUNDARY, "slip": kinds.BOUNDARY, "open": kinds.ZERO}
        axes = self._dimensions(phi)[1].names
        sides = {
            axis + sign: side
            for axis, pair in zip(axes, self.grid.boundary, strict=True)
            for sign, side in zip("-+", pair, strict=True)
        }
        # PhiFlow 3.4 makes one extrapolation of sides that are all equal, and cannot tell normal from tangential in it:
        # an entry for an axis as a whole, which no side reads, keeps slip walls apart.
        apart = {axes[0]: kinds.ZERO} if set(sides.values()) == {"slip"} else {}
        return (
            kinds.combine_sides({name: smoke[side] for name, side in sides.items()}),
            kinds.combine_sides({name: velocity[side] for name, side in sides.items()} | apart),
        )

    def _carry(self, phi: SimpleNamespace, state: State, smoke: Any, velocity: Any) -> tuple[Any, Any]:
        solid = self._solid(state)
        if not bool(solid.any()):
            return super()._carry(phi, state, smoke, velocity)
        math, sphere = phi.math, self._sphere(phi, state)
        offset = smoke.points - sphere.center
        reach = sphere.radius + sum(h**2 for h in self.grid.spacing) ** 0.5  # all samples around are outside there
        surface = sphere.center + offset * (reach / math.maximum(math.vec_length(offset), 1e-300))
        covered = math.wrap(solid, *self._dimensions(phi))
        filled = smoke.with_values(math.where(covered, phi.field.reduce_sample(smoke, surface), smoke.values))

        def path(field: Any, flow: Any, dt: float) -> Any:
            speed = phi.field.sample(flow, field.geometry, at=field.sampled_at, boundary=field.boundary)
            return _stopped(math, field.points, dt * speed, sphere)

        carried = phi.advect.semi_lagrangian(filled, velocity, self.dt, path)
        carried = carried.with_values(math.where(covered, 0, carried.values))
        return carried, phi.advect.semi_lagrangian(velocity, velocity, self.dt, path)

    def _project(self, phi: SimpleNamespace, state: State, velocity: Any, obstacles: Any = ()) -> Any:
        solid = self._solid(state)
        if bool(solid.any()):
            dimensions = self._dimensions(phi)
            masks = [phi.math.wrap(mask.to(torch.float64), *dimensions) for mask in self.scene.passable(solid)]
            passable = phi.math.stack(dict(zip(dimensions[1].names, masks, strict=True)), phi.math.dual("vector"))
            velocity = velocity.with_values(velocity.values * passable)
            obstacles = self._sphere(phi, state)
        beyond = velocity.boundary  # the pressure acts on normal velocities alone
        normal = velocity.with_boundary(phi.math.extrapolation.get_normal(beyond))
        return super()._project(phi, state, normal, obstacles).with_boundary(beyond)

    def _sphere(self, phi: SimpleNamespace, state: State) -> Any:
        """The obstacles of a batch; those of radius 0 far outside the box, where they cover nothing."""
        batch, space = self._dimensions(phi)
        center, radius = self._obstacle(state)
        middle = torch.tensor(self.grid.extent, dtype=center.dtype, device=center.device) / 2
        place = torch.where(radius > 0, center + middle, -1e3 * middle)
        vector = phi.math.channel(vector=",".join(space.names))
        return phi.geom.Sphere(phi.math.wrap(place, batch, vector), radius=phi.math.wrap(radius[:, 0] * SOLID, batch))


def _stopped(math: Any, start: Any, step: Any, sphere: Any) -> Any:
    """Where straight paths end, if they end where they enter the sphere: |start + t·step − c| = r, t <= 1."""
    offset = start - sphere.center
    length, along = math.sum(step**2, "vector"), math.sum(step * offset, "vector")
    outside = math.maximum(math.sum(offset**2, "vector") - sphere.radius**2, 0)
    inner = along**2 - length * outside
    share = (-along - math.sqrt(math.maximum(inner, 0))) / math.maximum(length, 1e-300)
    enters = (along < 0) & (inner >= 0)
    return start + step * math.where(enters, math.minimum(share, 1), 1)
