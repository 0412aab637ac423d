"""Error against wall-clock time: the native solver at several resolutions, a surrogate, and couplings, in one run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cliffsteer.coupling.transfer import transfer
from cliffsteer.grid import Grid
from cliffsteer.metrics import FieldErrors
from cliffsteer.solvers.base import Solver, State, UnstableError
from cliffsteer.stepper import Parameters, Stepper, rollout


@dataclass(frozen=True)
class Point:
    """One candidate's error and cost.

    Args:
        label: what it is called.
        kind: "solver", "surrogate", "coupling", or "peer", another solver that is shown and not judged.
        shape: cells of its grid.
        error: NRMSE after the last step, the mean over fields.
        errors: the same after each step.
        seconds: for one frame of the whole batch: the time of a rollout over its frames, the median over repetitions.
        quartiles: the first and the third one of the same.
        speedup: time that the solver takes at this error over ``seconds``, 0 for an error that is not finite; None for
            solvers, and where no measured solver is as good.
    """

    label: str
    kind: str
    shape: tuple[int, ...]
    error: float
    errors: tuple[float, ...]
    seconds: float
    quartiles: tuple[float, float]
    speedup: float | None = None


@dataclass(frozen=True)
class Candidate:
    """What is to be timed, after its first rollout, which gave its errors and made its kernels and plans.

    Args:
        label: as in `Point`.
        kind: as in `Point`.
        shape: as in `Point`.
        errors: as in `Point`.
        device: where its start frames are, and so where it runs.
        roll: one rollout; returns the seconds that it took.
    """

    label: str
    kind: str
    shape: tuple[int, ...]
    errors: tuple[float, ...]
    device: torch.device
    roll: Callable[[], float]

    @property
    def is_finite(self) -> bool:
        """Whether it has an error after each step."""
        return all(map(math.isfinite, self.errors))


class Problem:
    """One initial value problem, on every grid that a candidate asks for.

    Everyone starts from the frames of the reference, seen on its own grid, and is compared with the reference on one
    common grid. `solver` and `stepper` run a candidate once; `measure` times all of them, in turns.

    Args:
        reference: a native solver, finer than all that are compared; it runs on the CPU.
        common: grid of the comparison.
        seeds: of the trajectories, which are run as one batch.
        every: solver steps between frames.
        before: frames at the start that a candidate may read, the first one not at rest.
        steps: frames that are predicted.
        repeats: how often each candidate is timed.
        skip: frames dropped at the start, as in the data that a surrogate was trained on.
        device: where all candidates run.

    Raises:
        ValueError: a number below 1, or a reference that is not stable.
    """

    def __init__(
        self,
        reference: Solver,
        common: Grid,
        seeds: Sequence[int],
        every: int = 1,
        before: int = 1,
        steps: int = 10,
        repeats: int = 3,
        skip: int = 0,
        device: torch.device | str = "cpu",
    ):
        for name, value in (("every", every), ("before", before), ("steps", steps), ("repeats", repeats)):
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1.")
        self.reference, self.common, self.every, self.before = reference, common, every, before
        self.steps, self.repeats, self.device = steps, repeats, torch.device(device)
        self.dt = reference.dt * every
        frames = []
        with torch.no_grad():
            state = reference.initial(seeds)
            for _ in range(skip):
                state = self._frame(reference, state)
            for _ in range(before + steps):
                state = self._frame(reference, state)
                frames.append(reference.observe(state))
        self.parameters: Parameters = {name: value.to(self.device) for name, value in state.parameters.items()}
        self.frames = torch.cat(frames, 1)
        if not bool(torch.isfinite(self.frames).all()):
            raise UnstableError(
                f"`reference` ({reference.name} with {reference.grid.shape} cells) becomes NaN or infinite on the way."
            )
        self.truth = self._on(common, self.frames[:, before:])

    def solver(self, solver: Solver, label: str) -> Candidate:
        """A solver, run from state to state.

        Raises:
            ValueError: another time step than the problem's, or a solver that is not stable.
        """
        self._require_dt(label, solver.dt * self.every)
        start = self._on(solver.grid, self.frames[:, self.before - 1 : self.before]).to(self.device)
        first = solver.restore(start, self.parameters)
        shown, state = [], first
        with torch.no_grad():
            for _ in range(self.steps):
                state = self._frame(solver, state)
                shown.append(solver.observe(state))

        def run() -> None:
            state = first
            for _ in range(self.steps):
                state = self._frame(solver, state)

        return self._candidate(label, "solver", solver.grid, torch.cat(shown, 1), run)

    def stepper(self, stepper: Stepper, label: str, kind: str = "coupling") -> Candidate:
        """A surrogate or a coupling, rolled out from frames in single precision.

        Raises:
            ValueError: another time step than the problem's.
        """
        self._require_dt(label, stepper.dt)
        start = self._on(stepper.grid, self.frames[:, : self.before]).float().to(self.device)
        reset: Callable[[], None] = getattr(stepper, "reset", lambda: None)

        def run() -> Tensor:
            return rollout(stepper, start, self.steps, self.parameters)

        reset()
        with torch.no_grad():
            frames = run()
        return self._candidate(label, kind, stepper.grid, frames, run, reset)

    def measure(self, candidates: Sequence[Candidate]) -> list[Point]:
        """Time all candidates in turns, so that what slows the machine for a while slows all of them."""
        seconds: list[list[float]] = [[] for _ in candidates]
        for _ in range(self.repeats):
            for candidate, taken in zip(candidates, seconds, strict=True):
                taken.append(candidate.roll() / self.steps)
        return [_point(candidate, taken) for candidate, taken in zip(candidates, seconds, strict=True)]

    def _frame(self, solver: Solver, state: State) -> State:
        for _ in range(self.every):
            state = solver.advance(state)
        return state

    def _on(self, grid: Grid, frames: Tensor) -> Tensor:
        return transfer(frames, self.reference.spec, self.reference.grid, grid)

    def _require_dt(self, label: str, dt: float) -> None:
        if not math.isclose(dt, self.dt, rel_tol=1e-9):
            raise ValueError(
                f"`{label}` has the time step {dt:g}, but frames of the reference are {self.dt:g} apart: both must"
                " advance by the same time."
            )

    def _candidate(
        self,
        label: str,
        kind: str,
        grid: Grid,
        frames: Tensor,
        run: Callable[[], object],
        reset: Callable[[], None] = lambda: None,
    ) -> Candidate:
        measured = FieldErrors(self.reference.spec, self.steps)
        measured.update(transfer(frames.double().cpu(), self.reference.spec, grid, self.common), self.truth)

        def roll() -> float:
            reset()
            with torch.no_grad():
                self._wait()
                began = time.perf_counter()
                run()
                self._wait()
                return time.perf_counter() - began

        errors = tuple(measured.compute()["overall"]["nrmse"])
        return Candidate(label, kind, grid.shape, errors, frames.device, roll)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _point(candidate: Candidate, seconds: Sequence[float]) -> Point:
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else (*seconds,) * 3
    errors = candidate.errors
    middle = statistics.median(seconds)
    return Point(candidate.label, candidate.kind, candidate.shape, errors[-1], errors, middle, (low, high))
