"""Refined and CoarseToFine: a surrogate of a coarse grid at work on a finer one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliffsteer.coupling.compatible import require_same_dt, require_same_spec
from cliffsteer.coupling.transfer import require_same_domain, transfer, whole_factor
from cliffsteer.grid import Grid
from cliffsteer.projection import Projection, require_suited
from cliffsteer.stepper import Parameters, Stepper, check_frames, rollout


class Refined:
    """A Stepper of a coarse grid as one of a finer grid: it moves what the coarse grid shows, and keeps the rest.

        u ← Π (u + P (step(R u) − R u))

    with R to the coarse grid, P back (`transfer`), and Π the projections, since interpolation leaves a divergence.

    Args:
        stepper: any Stepper.
        grid: a finer grid of the same domain, or the same one.
        projections: on fields of the finer grid.

    Raises:
        ValueError: another domain, fewer cells along an axis, with walls a ratio of cells that is not whole, or
            projections for other fields or another grid.
    """

    def __init__(self, stepper: Stepper, grid: Grid, projections: Sequence[Projection] = ()):
        require_same_domain(stepper.grid, grid)
        if any(n < m for n, m in zip(grid.shape, stepper.grid.shape, strict=True)):
            raise ValueError(
                f"`grid` (={grid.shape} cells) must have at least the {stepper.grid.shape} cells of the stepper along"
                " each axis: give a finer grid."
            )
        if not grid.is_periodic:
            whole_factor(stepper.grid, grid)
        require_suited(projections, stepper.spec, grid)
        self.stepper, self.grid, self.projections = stepper, grid, list(projections)
        self.spec, self.dt, self.history = stepper.spec, stepper.dt, stepper.history

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """As many frames as the coarse stepper gives, shape (batch, future, blade, *grid)."""
        check_frames(self, frames)
        coarse = transfer(frames[:, -self.history :], self.spec, self.grid, self.stepper.grid)
        change = self.stepper.step(coarse, parameters).to(frames.dtype) - coarse[:, -1:]
        new = frames[:, -1:] + transfer(change, self.spec, self.stepper.grid, self.grid)
        for projection in self.projections:
            new = projection(new, frames)
        return new


class CoarseToFine:
    """A surrogate on a coarse grid, projected and finished by the solver on the fine one.

    A cycle is m frames of the surrogate, each brought to the fine grid and projected (`Refined`), then k frames of the
    solver, which rebuilds what the coarse grid does not show.

    Args:
        solver: any Stepper on the fine grid.
        surrogate: any Stepper on a coarse grid of the same domain, with the same fields and time step.
        surrogate_steps: m, >= 1.
        solver_steps: k, >= 1.
        projections: on fields of the fine grid.

    Attributes:
        spec, grid, dt: those of the solver.
        history: the larger of the two.

    Raises:
        ValueError: a count < 1, Steppers that differ in spec, domain or dt, or projections not for the fine grid.

    Example:
        >>> from cliffsteer.projection import DivergenceFree
        >>> from cliffsteer.solvers import create
        >>> fine, coarse = (create("smoke", resolution=n) for n in (32, 16))
        >>> coupling = CoarseToFine(fine, coarse, 2, 1, [DivergenceFree(fine.spec, fine.grid)])
        >>> coupling.step(fine.observe(fine.initial([0]))).shape
        torch.Size([1, 3, 4, 32, 32])
    """

    def __init__(
        self,
        solver: Stepper,
        surrogate: Stepper,
        surrogate_steps: int = 1,
        solver_steps: int = 1,
        projections: Sequence[Projection] = (),
    ):
        for name, count in {"solver_steps": solver_steps, "surrogate_steps": surrogate_steps}.items():
            if count < 1:
                raise ValueError(f"`{name}` (={count}) must be at least 1.")
        require_same_spec(solver.spec, surrogate.spec)
        require_same_dt(solver, surrogate)
        self.solver, self.surrogate = solver, Refined(surrogate, solver.grid, projections)
        self.surrogate_steps, self.solver_steps = surrogate_steps, solver_steps
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt
        self.history = max(solver.history, surrogate.history)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The frames of one cycle, shape (batch, surrogate_steps + solver_steps, blade, *grid)."""
        check_frames(self, frames)
        predicted = rollout(self.surrogate, frames, self.surrogate_steps, parameters)
        recent = torch.cat([frames, predicted], 1)
        solved = rollout(self.solver, recent, self.solver_steps, parameters).to(frames.dtype)
        return torch.cat([predicted, solved], 1)
