"""Predictor: a surrogate's velocity as the initial guess of an iterative pressure solve."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cliffsteer.coupling.compatible import require_same_system
from cliffsteer.solvers.smoke_phiflow import SmokePhiFlow, phiflow
from cliffsteer.stepper import Parameters, Stepper, check_frames


class Predictor:
    """A PhiFlow solver whose pressure solve starts from what a surrogate predicts: fewer iterations, same accuracy.

    Before the solve the velocity is u*, after it u = u* − ∇p. With the surrogate's û in place of u, ∇p ≈ u* − û, and
    that is integrated along the axes to a first p (`potential`). The solve goes on to the solver's own tolerance
    whatever the guess is, so a bad surrogate costs time and nothing else. Where the surrogate's frame is not finite,
    the last velocity takes its place.

    Args:
        solver: "smoke_phiflow", or "smoke_scene" without obstacle.
        surrogate: any Stepper on the same fields, grid and time step; None starts from zero, as the solver alone does.

    Attributes:
        spec, grid, dt, history: as for `Alternate`.
        iterations: of the pressure solve, the largest in the batch, one number for each call.

    Raises:
        ValueError: a solver without a pressure solve or with an obstacle, or a surrogate that differs in spec, grid or
            dt.

    Example:
        >>> from cliffsteer.solvers import create
        >>> solver = create("smoke_phiflow", resolution=16)
        >>> predictor = Predictor(solver, create("smoke", resolution=16))
        >>> frames = predictor.step(solver.observe(solver.initial([0])))  # doctest: +SKIP
    """

    def __init__(self, solver: SmokePhiFlow, surrogate: Stepper | None):
        if not isinstance(solver, SmokePhiFlow):
            raise ValueError(
                f"`solver` (a {type(solver).__name__}) solves no pressure iteratively: give 'smoke_phiflow' or"
                " 'smoke_scene'."
            )
        if getattr(solver, "has_obstacle", False):
            raise ValueError(
                "`solver` has an obstacle: a pressure cannot be summed up along lines that lead through it; take the"
                " solver alone, or another coupling."
            )
        if surrogate is not None:
            require_same_system(solver, surrogate)
        self.solver, self.surrogate = solver, surrogate
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt
        self.history = max(solver.history, getattr(surrogate, "history", 1))
        self.reset()

    def reset(self) -> None:
        """Forget the iterations."""
        self.iterations: list[int] = []

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The solver's next frame, shape (batch, 1, blade, *grid), in the dtype of ``frames``.

        Raises:
            ValueError: what the solver refuses.
        """
        check_frames(self, frames)
        guess = None
        if self.surrogate is not None:
            predicted = self.surrogate.step(frames, parameters)[:, :1]
            guess = self._faces(predicted.detach(), frames, parameters)
        state = self.solver.restore(frames, parameters)
        self.solver.check_viscosity(state.parameters["viscosity"])
        with phiflow() as phi:
            after = self.solver._advance(self._guessing(phi, guess), state)
        return self.solver.observe(after).to(frames.dtype)

    def _faces(self, predicted: Tensor, frames: Tensor, parameters: Parameters | None) -> tuple[Tensor, ...] | None:
        """The predicted velocity on the solver's faces; samples that are not finite keep their last one."""
        finite = torch.isfinite(predicted).flatten(1).all(1).view(-1, *[1] * (predicted.ndim - 1))
        usable = torch.where(finite, predicted, frames[:, -1:].to(predicted.dtype))
        return self.solver.faces(self.solver.restore(usable, parameters))

    def _guessing(self, phi: SimpleNamespace, guess: Sequence[Tensor] | None) -> SimpleNamespace:
        """PhiFlow's modules with a pressure solve that starts from the guess and counts."""
        make_incompressible = phi.fluid.make_incompressible

        def solve_from_guess(velocity: Any, obstacles: Any, solve: Any) -> Any:
            if guess is not None:
                solve = phi.math.copy_with(solve, x0=self._pressure(phi, velocity, guess))
            with phi.math.SolveTape() as solves:
                result = make_incompressible(velocity, obstacles, solve)
            self.iterations.append(int(solves[0].iterations.max))
            return result

        return SimpleNamespace(**{**vars(phi), "fluid": SimpleNamespace(make_incompressible=solve_from_guess)})

    def _pressure(self, phi: SimpleNamespace, velocity: Any, guess: Sequence[Tensor]) -> Any:
        """A pressure field whose gradient is about velocity − guess."""
        batch, space = phi.math.batch("batch"), velocity.resolution
        order = ",".join(("batch", *space.names))
        given = [velocity.values[{"~vector": axis}].native(order) for axis in space.names]
        slopes = [a - b for a, b in zip(given, guess, strict=True)]
        inner = [self._inner(slope, axis) for axis, slope in enumerate(slopes)]
        pressure = potential(inner, self.grid.spacing)
        pressure = pressure - self._beyond(pressure, slopes)
        values = phi.math.wrap(pressure, batch, phi.math.spatial(",".join(space.names)))
        kinds = phi.math.extrapolation
        sides = {
            name + sign: kinds.ZERO if side == "open" else kinds.BOUNDARY
            for name, pair in zip(space.names, self.grid.boundary, strict=True)
            for sign, side in zip("-+", pair, strict=True)
        }
        return phi.field.CenteredGrid(values, kinds.combine_sides(sides), velocity.bounds)

    def _beyond(self, pressure: Tensor, slopes: Sequence[Tensor]) -> Tensor | float:
        """Mean of the pressure beyond open sides, where it is to be zero; 0 where there are none."""
        found = []
        for axis, (sides, h) in enumerate(zip(self.grid.boundary, self.grid.spacing, strict=True), 1):
            for side, place, sign in zip(sides, (0, -1), (-1, 1), strict=True):
                if side == "open":
                    last = pressure.select(axis, place) + sign * h * slopes[axis - 1].select(axis, place)
                    found.append(last.flatten(1))
        if not found:
            return 0.0
        return torch.cat(found, 1).mean(1).view(-1, *[1] * self.grid.dim)

    def _inner(self, face: Tensor, axis: int) -> Tensor:
        """Values on the faces between cells alone."""
        n, low = self.grid.shape[axis], int(self.grid.boundary[axis][0] == "open")
        return face.narrow(axis + 1, low, n - 1)


def potential(slopes: Sequence[Tensor], spacing: Sequence[float]) -> Tensor:
    """Values at the centres whose differences are about the slopes between them, with mean 0.

    Along the first axis the slopes are summed up; what is still free, one constant for each line, is found from the
    other slopes averaged along the line, in the same way. For slopes that are differences of a potential it is that
    potential.

    Args:
        slopes: for each axis the slopes on the faces between cells, (batch, *grid) with one entry fewer on that axis.
        spacing: distance of centres along each axis.
    """
    along = torch.cat([torch.zeros_like(slopes[0][:, :1]), slopes[0].cumsum(1) * spacing[0]], 1)
    if len(slopes) > 1:
        rest = [
            (slope - along.diff(dim=axis) / h).mean(1)
            for axis, (slope, h) in enumerate(zip(slopes[1:], spacing[1:], strict=True), 2)
        ]
        along = along + potential(rest, spacing[1:]).unsqueeze(1)
    return along - along.flatten(1).mean(1).view(-1, *[1] * (along.ndim - 1))
