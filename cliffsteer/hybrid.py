"""Couplings of Steppers that are Steppers themselves: a solver and a surrogate in turns, and several steps as one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import require_same_grid
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
        if times < 1:
            raise ValueError(f"`times` (={times}) must be at least 1.")
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
            if count < 1:
                raise ValueError(f"`{name}` (={count}) must be at least 1; to leave one out, roll out the other alone.")
        _require_same_spec(solver.spec, surrogate.spec)
        require_same_grid("surrogate", surrogate.grid, solver.grid)
        if not math.isclose(solver.dt, surrogate.dt, rel_tol=1e-9):
            raise ValueError(
                f"`solver` has dt {solver.dt:g} and `surrogate` dt {surrogate.dt:g}: both must advance by the same"
                " time; wrap the one with the smaller dt in Repeated(stepper, times)."
            )
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


def _require_same_spec(solver: FieldSpec, surrogate: FieldSpec) -> None:
    """Raise a ValueError that names the first field in which the two differ."""
    if solver.algebra != surrogate.algebra:
        raise ValueError(
            f"`solver` lives in {solver.algebra} and `surrogate` in {surrogate.algebra}: both must have one signature."
        )
    ours, theirs = ({field.name: field for field in spec.fields} for spec in (solver, surrogate))
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"`solver` and `surrogate` differ in field {name!r}: {ours.get(name, 'absent')} against"
                f" {theirs.get(name, 'absent')}; both must have one field spec."
            )
    if solver != surrogate:
        raise ValueError(f"`solver` and `surrogate` list their fields in different orders: {solver}, {surrogate}.")
