"""Guarded: a surrogate whose every step is checked, and a solver that takes over where a check fails."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cliffsteer.coupling.budgets import score_all
from cliffsteer.coupling.compatible import require_same_system
from cliffsteer.coupling.guards import Finite, Guard, tripped
from cliffsteer.fields import FieldSpec
from cliffsteer.nn.checks import is_whole
from cliffsteer.stepper import Parameters, Stepper, check_frames, rollout

NEAR = 0.5
"""A frame goes on from the one that was returned when they differ by less than this, relative to the step's change."""
ROUNDING = 1e-5
"""The same, relative to the frame itself."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """A guard that was tripped.

    Args:
        step: frames of the trajectory that `Guarded` had produced before.
        sample: place in the batch.
        guard: its name.
        score: what it measured.
        threshold: what it allows.
        cell: where the rejected frames are farthest from the solver's, or the first cell that is not finite.
        error: of the rejected frames against the solver's, NRMSE, the mean over fields.
    """

    step: int
    sample: int
    guard: str
    score: float
    threshold: float
    cell: tuple[int, ...] = ()
    error: float = math.nan


class Guarded:
    """The surrogate where its guards let it pass, the solver where they do not, sample by sample.

    Each call asks the surrogate for all samples but those that are handed back. A sample that trips a guard is done
    again by the solver from the same frames, and so are its next ``hand_back`` calls. A sample goes on where the last
    frame it is given is the one that was returned for it, or near it, as after a projection: nearer than half of what
    the call changed. Any other starts a new trajectory, with nothing handed back. With a solver whose trajectories do
    not depend on the rest of the batch, neither do these.

    Gradients go through the frames that were returned. Where a sample is rejected and a gradient is wanted, the
    surrogate is asked again for the others: a NaN would reach the gradient of its weights even from a rejected sample.

    Args:
        solver: any Stepper.
        surrogate: any Stepper on the same fields, grid and time step.
        guards: with thresholds, see `calibrate`; `Finite` is added where it is not among them.
        hand_back: calls after a tripped guard that go to the solver unasked, >= 0.

    Attributes:
        spec, grid, dt, history: as for `Alternate`.
        events: tripped guards, in order.
        counts: "surrogate", "rejected" and "handed back", frames by who made them and why, and for each guard
            "guard NAME", how often it was tripped.

    Raises:
        ValueError: ``hand_back`` < 0, no guards, or two Steppers that differ in spec, grid or dt.

    Example:
        >>> from cliffsteer.coupling.guards import Finite
        >>> from cliffsteer.solvers import create
        >>> solver = create("smoke", resolution=16)
        >>> guarded = Guarded(solver, solver, [Finite()])
        >>> frames = rollout(guarded, solver.observe(solver.initial([0])), steps=3)
        >>> guarded.counts["surrogate"], guarded.events
        (3, [])
    """

    def __init__(self, solver: Stepper, surrogate: Stepper, guards: Sequence[Guard], hand_back: int = 0):
        require_same_system(solver, surrogate)
        if not is_whole(hand_back, 0):
            raise ValueError(f"`hand_back` (={hand_back!r}) must be a whole number, at least 0.")
        if not guards:
            raise ValueError("`guards` is empty: without any the surrogate is never checked; `calibrate` makes them.")
        always = [] if any(isinstance(guard, Finite) for guard in guards) else [Finite()]
        self.solver, self.surrogate, self.guards, self.hand_back = solver, surrogate, [*always, *guards], hand_back
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt
        self.history = max(solver.history, surrogate.history)
        self.reset()

    def reset(self) -> None:
        """Forget events, counts and trajectories."""
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self._start: Tensor | None = None
        self._last: Tensor | None = None
        self._left: Tensor | None = None
        self._done: Tensor | None = None
        self._future = 1
        self._spent: dict[str, Tensor] = {}
        self._replays = False

    def replay(self) -> AbstractContextManager:
        """A context, to be entered at will, in which a step from now is done again: nothing of it is kept or logged."""
        return _Replay(self)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frames.

        Args:
            frames: shape (batch, time, blade, *grid), time >= ``history``.
            parameters: parameter fields by name.

        Returns:
            As many frames as the surrogate predicts at once, shape (batch, future, blade, *grid), in the dtype of
            ``frames``.

        Raises:
            ValueError: frames that do not fit, or whose last ones are not finite, so that no solver can go on.
        """
        check_frames(self, frames)
        self._require_finite(frames)
        packed = self.spec.pack_parameters(parameters, len(frames), torch.float64, frames.device)
        left, done = self._follow(frames)
        asked = left == 0
        proposed, passed = None, torch.zeros_like(asked)
        if bool(asked.any()):
            rows = self.spec.unpack_parameters(packed[asked])
            proposed = self.surrogate.step(frames[asked], rows).to(frames.dtype)
            self._future = proposed.shape[1]
            alarms, trips, after = self._check(frames[asked], proposed, rows, asked)
            passed[asked] = ~trips
            self._spend(after, asked, passed)
        out = frames.new_zeros(len(frames), self._future, *frames.shape[2:])
        if proposed is not None and bool(passed.any()):
            kept = proposed[passed[asked]]
            if proposed.requires_grad and len(kept) < len(proposed):
                rows = self.spec.unpack_parameters(packed[passed])
                kept = self.surrogate.step(frames[passed], rows).to(frames.dtype)
            out[passed] = kept
        if not bool(passed.all()):
            rest = ~passed
            rows = self.spec.unpack_parameters(packed[rest])
            out[rest] = rollout(self.solver, frames[rest], self._future, rows).to(frames.dtype)
        if proposed is not None and not self._replays:
            self._record(alarms, proposed, out.detach()[asked], asked.nonzero()[:, 0].tolist(), done)
        rejected = asked & ~passed
        for name, mask in {"surrogate": passed, "rejected": rejected, "handed back": ~asked}.items():
            self.counts[name] += int(mask.sum()) * self._future
        self._left = torch.where(rejected, self.hand_back, (left - 1).clamp_min(0))
        self._done, self._start, self._last = done + self._future, frames[:, -1].detach(), out[:, -1].detach()
        return out

    def summary(self) -> dict[str, Any]:
        """JSON-ready: counts and events; a score or an error that is no number is None."""
        events = [asdict(event) for event in self.events]
        for event in events:
            event |= {name: None for name in ("score", "error") if not math.isfinite(event[name])}
        return {"counts": dict(self.counts), "events": events}

    def _follow(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Calls still handed back, and frames made before, of each sample; zeros for those that start here."""
        fresh = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
        given, start, last = frames[:, -1].detach(), self._start, self._last
        if last is None or start is None or last.shape != given.shape:
            self._spent = {}
            return fresh, fresh.clone()
        off, change, size = (a.double().flatten(1).norm(dim=1) for a in (given - last, last - start, last))
        same = off <= torch.maximum(NEAR * change, ROUNDING * size)
        self._spent = {name: value * same[:, None] for name, value in self._spent.items()}
        return torch.where(same, self._left, fresh), torch.where(same, self._done, fresh)

    def _check(
        self, before: Tensor, proposed: Tensor, rows: Parameters, asked: Tensor
    ) -> tuple[list[tuple[int, Guard, float]], Tensor, dict[str, Tensor]]:
        """Alarms as (row, guard, score), which samples trip a guard, (batch,), and budgets after the step."""
        alarms, out = [], torch.zeros(len(before), dtype=torch.bool, device=before.device)
        spent = {name: value[asked] for name, value in self._spent.items()}
        with torch.no_grad():
            found, after = score_all(self.guards, before, proposed, rows, spent)
            for guard, scores in zip(self.guards, found, strict=True):
                trips = tripped(guard, scores)
                out |= trips.to(out.device)
                alarms += [(row, guard, float(scores[row])) for row in trips.nonzero()[:, 0].tolist()]
        return alarms, out, after

    def _spend(self, after: Mapping[str, Tensor], asked: Tensor, passed: Tensor) -> None:
        """Keep what the budgets of the samples that passed hold now."""
        for name, value in after.items():
            held = self._spent.setdefault(name, value.new_zeros(len(asked), value.shape[1])).clone()
            held[passed] = value[passed[asked]]
            self._spent[name] = held

    def _record(
        self,
        alarms: Sequence[tuple[int, Guard, float]],
        proposed: Tensor,
        solved: Tensor,
        places: Sequence[int],
        done: Tensor,
    ) -> None:
        """Count, keep and log alarms, now that the solver has told what the surrogate missed."""
        for row, guard, score in alarms:
            place = places[row]
            cell, error = missed(self.spec, proposed[row].detach(), solved[row].detach())
            event = Event(int(done[place]), place, guard.name, score, float(guard.threshold), cell, error)
            self.events.append(event)
            self.counts[f"guard {guard.name}"] += 1
            logger.info(
                "step %d, sample %d: %s is %.3g, allowed is %.3g: the solver takes over (the step was off by %.2g, most"
                " at cell %s)",
                *(event.step, place, guard.name, score, event.threshold, error, cell),
            )

    def _require_finite(self, frames: Tensor) -> None:
        bad = ~torch.isfinite(frames[:, -self.solver.history :]).flatten(1).all(1)
        if bool(bad.any()):
            raise ValueError(
                f"`frames` holds NaN or infinite values in trajectory {int(bad.nonzero()[0])} of the batch, from which"
                " the solver cannot go on either: look for where they come from."
            )


class _Replay:
    """What `Guarded.replay` gives: inside, what decides over the next step is what it was when this was made."""

    def __init__(self, guarded: Guarded):
        names = ("_start", "_last", "_left", "_done", "_future", "_spent")
        self.guarded, self.before = guarded, {name: getattr(guarded, name) for name in names}

    def __enter__(self) -> None:
        kept = vars(self.guarded)
        self.now = {name: kept[name] for name in (*self.before, "counts", "_replays")}
        kept.update(self.before, counts=Counter(), _replays=True)

    def __exit__(self, *_: Any) -> None:
        vars(self.guarded).update(self.now)


def missed(spec: FieldSpec, proposed: Tensor, solved: Tensor) -> tuple[tuple[int, ...], float]:
    """Where, and by how much, rejected frames differ from the solver's.

    Args:
        spec: the fields.
        proposed: frames of one sample, shape (time, blade, *grid).
        solved: the solver's, the same shape.

    Returns:
        The cell of the largest difference, every field relative to its root mean square (the first cell that is not
        finite, if there is one), and the NRMSE, the mean over fields.
    """
    wrong, parts = torch.zeros(proposed.shape[2:], dtype=torch.float64, device=proposed.device), []
    truth = spec.unpack(solved[None].double())
    for name, value in spec.unpack(proposed[None].double()).items():
        square = (value - truth[name]).square().sum(2)[0].mean(0)
        size = truth[name].square().sum(2).mean().clamp_min(1e-30)
        wrong += square / size
        parts.append(float((square.mean() / size).sqrt()))
    broken = ~torch.isfinite(wrong)
    place = int((broken if bool(broken.any()) else wrong).flatten().to(torch.float64).argmax())
    cell = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), wrong.shape))
    return cell, sum(parts) / len(parts)
