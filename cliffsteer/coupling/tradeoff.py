"""Error against wall-clock time: the native solver at several resolutions, a surrogate, and couplings, in one run."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cliffsteer.coupling.transfer import transfer
from cliffsteer.grid import Grid
from cliffsteer.metrics import FieldErrors
from cliffsteer.solvers.base import Solver, State
from cliffsteer.stepper import Parameters, Stepper, rollout

ALIKE = 0.01
"""An error that is lower than the best solver's by no more than this share counts as the same."""


@dataclass(frozen=True)
class Point:
    """One candidate's error and cost.

    Args:
        label: what it is called.
        kind: "solver", "surrogate", "coupling", or "peer", another solver that is shown and not judged.
        shape: cells of its grid.
        error: NRMSE after the last step, the mean over fields.
        errors: the same after each step.
        seconds: for one frame of the whole batch, the median over frames and repetitions.
        speedup: time that the solver takes at this error over ``seconds``; None for solvers, and where no measured
            solver is as good.
    """

    label: str
    kind: str
    shape: tuple[int, ...]
    error: float
    errors: tuple[float, ...]
    seconds: float
    speedup: float | None = None


class Problem:
    """One initial value problem, on every grid that a candidate asks for.

    Everyone starts from the frames of the reference, seen on its own grid, and is compared with the reference on one
    common grid.

    Args:
        reference: a native solver, finer than all that are compared.
        common: grid of the comparison.
        seeds: of the trajectories, which are run as one batch.
        every: solver steps between frames.
        before: frames at the start that a candidate may read, the first one not at rest.
        steps: frames that are predicted.
        repeats: how often each candidate is timed.
        skip: frames dropped at the start, as in the data that a surrogate was trained on.
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
    ):
        for name, value in (("every", every), ("before", before), ("steps", steps), ("repeats", repeats)):
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1.")
        self.reference, self.common, self.every, self.before = reference, common, every, before
        self.steps, self.repeats = steps, repeats
        state = reference.initial(seeds)
        self.parameters: Parameters = state.parameters
        frames = []
        for _ in range(skip):
            state = self._frame(reference, state)
        for _ in range(before + steps):
            state = self._frame(reference, state)
            frames.append(reference.observe(state))
        self.frames = torch.cat(frames, 1)
        self.truth = self._on(common, self.frames[:, before:])

    def solver(self, solver: Solver, label: str) -> Point:
        """A solver, run from state to state."""
        first = solver.restore(self._on(solver.grid, self.frames[:, self.before - 1 : self.before]), self.parameters)
        seconds, shown = [], []
        for repeat in range(self.repeats):
            state = first
            for _ in range(self.steps):
                began = time.perf_counter()
                state = self._frame(solver, state)
                seconds.append(time.perf_counter() - began)
                if not repeat:
                    shown.append(solver.observe(state))
        return self._point(label, "solver", solver.grid, torch.cat(shown, 1), statistics.median(seconds))

    def stepper(self, stepper: Stepper, label: str, kind: str = "coupling") -> Point:
        """A surrogate or a coupling, rolled out from frames in single precision."""
        start = self._on(stepper.grid, self.frames[:, : self.before]).float()
        reset: Callable[[], None] = getattr(stepper, "reset", lambda: None)
        seconds = []
        with torch.no_grad():
            stepper.step(start, self.parameters)  # kernels and plans are made on the first call
            for _ in range(self.repeats):
                reset()
                began = time.perf_counter()
                frames = rollout(stepper, start, self.steps, self.parameters)
                seconds.append((time.perf_counter() - began) / self.steps)
        return self._point(label, kind, stepper.grid, frames.double(), statistics.median(seconds))

    def _frame(self, solver: Solver, state: State) -> State:
        for _ in range(self.every):
            state = solver.advance(state)
        return state

    def _on(self, grid: Grid, frames: Tensor) -> Tensor:
        return transfer(frames, self.reference.spec, self.reference.grid, grid)

    def _point(self, label: str, kind: str, grid: Grid, frames: Tensor, seconds: float) -> Point:
        measured = FieldErrors(self.reference.spec, self.steps)
        measured.update(transfer(frames, self.reference.spec, grid, self.common), self.truth)
        errors = tuple(measured.compute()["overall"]["nrmse"])
        return Point(label, kind, grid.shape, errors[-1], errors, seconds)


def with_speedups(points: Sequence[Point]) -> list[Point]:
    """The points with the speedup of each against the solver at the same error.

    What the solver takes at an error between two of its resolutions is interpolated, linearly in the logarithms; at an
    error above that of all of them it takes the time of the cheapest one. A candidate whose error is no number is worth
    nothing.
    """
    frontier = _frontier([(p.error, p.seconds) for p in points if p.kind == "solver"])
    out = []
    for p in points:
        cost = None if p.kind == "solver" else _cost(frontier, p.error)
        out.append(Point(**{**asdict(p), "speedup": None if cost is None else cost / p.seconds}))
    return out


def verdict(points: Sequence[Point]) -> str:
    """Sentences on where a surrogate or a coupling pays, and where it does not."""
    others = [p for p in points if p.kind in ("surrogate", "coupling")]
    paying = [p for p in others if p.speedup is not None and p.speedup > 1]
    beyond = [p for p in others if p.speedup is None]
    lines = []
    if paying:
        best, first = max(paying, key=lambda p: p.speedup), min(paying, key=lambda p: p.error)
        lines.append(
            f"From an error of {first.error:.3g} on it pays to leave the native solver: {first.label} is"
            f" {first.speedup:.3g} times cheaper there; the largest gain is {best.speedup:.3g} times, by {best.label}"
            f" at an error of {best.error:.3g}."
        )
    elif others:
        nearest = max(others, key=lambda p: p.speedup or 0.0)
        if nearest.speedup is not None:
            lines.append(
                f"Nothing pays here: the native solver reaches the error of the best, {nearest.label}"
                f" ({nearest.error:.3g}), in {nearest.speedup:.3g} of its time."
            )
    lines += [f"No measured solver is as accurate as {p.label} ({p.error:.3g})." for p in beyond]
    return " ".join(lines) or "There was nothing to compare with the solver."


def gap_closed(points: Sequence[Point], uncorrected: str, corrected: str) -> tuple[float, Point] | None:
    """How much of the gap between a coarse solver and the next finer one a correction closes.

    Args:
        points: all points.
        uncorrected: label of the coarse solver alone.
        corrected: label of the same with its correction.

    Returns:
        (e_coarse − e_corrected) / (e_coarse − e_finer), 1 for as good as the finer one, and that solver's point; None
        where no finer one was measured, or it is no better.
    """
    by_label = {p.label: p for p in points}
    coarse, better = by_label[uncorrected], by_label[corrected]
    finer = [p for p in points if p.kind == "solver" and p.shape > coarse.shape]
    next_one = min(finer, key=lambda p: p.shape, default=None)
    if next_one is None or not next_one.error < coarse.error:
        return None
    return (coarse.error - better.error) / (coarse.error - next_one.error), next_one


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """JSON-ready points; what is no finite number is None."""
    return [_finite(asdict(p)) for p in points]


def _frontier(measured: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(error, seconds) of solvers that no other beats in both, by falling error."""
    kept: list[tuple[float, float]] = []
    for error, seconds in sorted((m for m in measured if math.isfinite(m[0])), key=lambda m: (m[1], m[0])):
        if not kept or error < kept[-1][0]:
            kept.append((error, seconds))
    return kept


def _cost(frontier: Sequence[tuple[float, float]], error: float) -> float | None:
    """Seconds of the solver at an error, None where it was not measured that well."""
    if not frontier or math.isnan(error):
        return 0.0
    if error >= frontier[0][0]:
        return frontier[0][1]
    if (1 - ALIKE) * frontier[-1][0] <= error <= frontier[-1][0]:
        return frontier[-1][1]
    for (high, cheap), (low, dear) in itertools.pairwise(frontier):
        if error >= low:
            share = 1.0 if low == 0 else math.log(high / error) / math.log(high / low)
            return cheap * (dear / cheap) ** share
    return None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
