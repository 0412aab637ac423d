"""Repeated and Alternate: several steps as one, and a solver and a surrogate in turns."""

from __future__ import annotations

import torch
from torch import Tensor

from cliffsteer.coupling.compatible import require_same_system
from cliffsteer.nn.checks import is_whole
from cliffsteer.stepper import Parameters, Stepper, check_frames, rollout


class Repeated:
    """``times`` steps of a Stepper as one: a Stepper with a ``times`` larger ``dt`` that returns every last frame.

    It brings a solver to the time step of a surrogate that was trained on every n-th frame. The frames in between come
    from the stepper itself, so it must read a single frame.

    Args:
        stepper: a Stepper of history 1.
        times: number of its steps in one.

    Raises:
        ValueError: ``times`` < 1, or the stepper reads more than one frame.
    """

    history = 1

    def __init__(self, stepper: Stepper, times: int):
        if not is_whole(times):
            raise ValueError(f"`times` (={times!r}) must be a whole number, at least 1.")
        if stepper.history != 1:
            raise ValueError(
                f"`stepper` reads {stepper.history} frames: only one that reads a single frame can be repeated, because"
                " the frames between those given are not known."
            )
        self.stepper, self.times = stepper, times
        self.spec, self.grid, self.dt = stepper.spec, stepper.grid, stepper.dt * times

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The frame ``times`` steps after the last one, shape (batch, 1, blade, *grid)."""
        return rollout(self.stepper, frames, self.times, parameters)[:, -1:]


class Alternate:
    """A solver and a surrogate in turns: k frames from the solver, then m from the surrogate.

    One ``step`` is the whole cycle and returns its k + m frames, so where it is in the cycle needs no memory: the same
    frames in give the same frames out. ``rollout`` cuts the last cycle to the number of frames asked for.

    Args:
        solver: the Stepper that goes first in each cycle (any Stepper, usually a Solver).
        surrogate: the Stepper that follows (any Stepper, usually a Surrogate).
        solver_steps: k, frames from the solver in a cycle, >= 1.
        surrogate_steps: m, frames from the surrogate in a cycle, >= 1.

    Attributes:
        spec, grid, dt: those of both.
        history: the larger of the two.

    Raises:
        ValueError: a count < 1, or two Steppers that differ in spec, grid or dt.

    Example:
        >>> from cliffsteer.solvers import create
        >>> solver = create("smoke", resolution=16)
        >>> coarse = create("smoke", resolution=16)
        >>> hybrid = Alternate(solver, coarse, solver_steps=1, surrogate_steps=3)
        >>> rollout(hybrid, solver.observe(solver.initial([0])), steps=8).shape
        torch.Size([1, 8, 4, 16, 16])
    """

    def __init__(self, solver: Stepper, surrogate: Stepper, solver_steps: int, surrogate_steps: int):
        for name, count in {"solver_steps": solver_steps, "surrogate_steps": surrogate_steps}.items():
            if not is_whole(count):
                raise ValueError(
                    f"`{name}` (={count!r}) must be a whole number, at least 1; to leave one out, roll out the other"
                    " alone."
                )
        require_same_system(solver, surrogate)
        self.solver, self.surrogate = solver, surrogate
        self.solver_steps, self.surrogate_steps = solver_steps, surrogate_steps
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt
        self.history = max(solver.history, surrogate.history)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The frames of one cycle.

        Args:
            frames: shape (batch, time, blade, *grid), time >= ``history``.
            parameters: parameter fields by name, passed on to both.

        Returns:
            Shape (batch, solver_steps + surrogate_steps, blade, *grid), in the dtype of ``frames``.

        Raises:
            ValueError: frames that do not fit.
        """
        check_frames(self, frames)
        solved = rollout(self.solver, frames, self.solver_steps, parameters).to(frames.dtype)
        recent = torch.cat([frames, solved], 1)
        predicted = rollout(self.surrogate, recent, self.surrogate_steps, parameters).to(frames.dtype)
        return torch.cat([solved, predicted], 1)
