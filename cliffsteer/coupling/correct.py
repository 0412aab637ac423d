"""Correct: a coarse solver whose every step is corrected by a network."""

from __future__ import annotations

import torch
from torch import Tensor

from cliffsteer.coupling.compatible import require_same_system
from cliffsteer.stepper import Parameters, Stepper, check_frames, rollout


class Correct:
    """A solver's step, then a learned correction of it: û = S(u),  u ← û + f(..., û).

    The correction is a `Surrogate` of prediction "delta" that takes no time: the last frame it reads is the solver's,
    and its scales are those of the solver's errors (`create_correction`). Where the solver is differentiable, so is the
    coupling, and `train_correction` trains it on its own rollouts.

    Args:
        solver: any Stepper, usually one that is too coarse.
        correction: a Stepper on the same fields, grid and time step, which predicts one frame.

    Attributes:
        spec, grid, dt: those of both.
        history: frames read; the correction reads the solver's besides.

    Raises:
        ValueError: Steppers that differ in spec, grid or dt, or a correction that predicts several frames.

    Source: Um et al., "Solver-in-the-loop: learning from differentiable physics to interact with iterative PDE-solvers"
    (2020); Kochkov et al., "Machine learning-accelerated computational fluid dynamics" (2021).
    """

    def __init__(self, solver: Stepper, correction: Stepper):
        require_same_system(solver, correction, "correction")
        if getattr(correction, "future", 1) != 1:
            raise ValueError(f"`correction` predicts {correction.future} frames: a correction is of one frame.")
        self.solver, self.correction = solver, correction
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt
        self.history = max(solver.history, correction.history - 1)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frame, shape (batch, 1, blade, *grid), in the dtype of ``frames``."""
        check_frames(self, frames)
        solved = rollout(self.solver, frames, 1, parameters).to(frames.dtype)
        return self.correction.step(torch.cat([frames, solved], 1), parameters)
