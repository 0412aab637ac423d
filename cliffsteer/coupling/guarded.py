"""Guarded: a surrogate whose every step is checked, and a solver that takes over where a check fails."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cliffsteer.coupling.compatible import require_same_system
from cliffsteer.coupling.guards import Guard, tripped
from cliffsteer.stepper import Parameters, Stepper, check_frames, rollout

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
    """

    step: int
    sample: int
    guard: str
    score: float
    threshold: float


class Guarded:
    """The surrogate where its guards let it pass, the solver where they do not, sample by sample.

    Each call asks the surrogate for all samples but those that are handed back. A sample that trips a guard is done
    again by the solver from the same frames, and so are its next ``hand_back`` calls. A sample goes on where the last
    frame it is given is the one that was returned for it; any other starts a new trajectory, with nothing handed back.
    With a solver whose trajectories do not depend on the rest of the batch, neither do these.

    Args:
        solver: any Stepper.
        surrogate: any Stepper on the same fields, grid and time step.
        guards: with thresholds, see `calibrate`.
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
        if hand_back < 0:
            raise ValueError(f"`hand_back` (={hand_back}) must be at least 0.")
        if not guards:
            raise ValueError("`guards` is empty: without any the surrogate is never checked; `calibrate` makes them.")
        self.solver, self.surrogate, self.guards, self.hand_back = solver, surrogate, list(guards), hand_back
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt
        self.history = max(solver.history, surrogate.history)
        self.reset()

    def reset(self) -> None:
        """Forget events, counts and trajectories."""
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self._last: Tensor | None = None
        self._future = 1

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
            trips = self._check(frames[asked], proposed, rows, asked.nonzero()[:, 0].tolist(), done)
            passed[asked] = ~trips
        out = frames.new_zeros(len(frames), self._future, *frames.shape[2:])
        if proposed is not None and bool(passed.any()):
            out[passed] = proposed[passed[asked]]
        if not bool(passed.all()):
            rest = ~passed
            rows = self.spec.unpack_parameters(packed[rest])
            out[rest] = rollout(self.solver, frames[rest], self._future, rows).to(frames.dtype)
        rejected = asked & ~passed
        for name, mask in {"surrogate": passed, "rejected": rejected, "handed back": ~asked}.items():
            self.counts[name] += int(mask.sum()) * self._future
        self._left = torch.where(rejected, self.hand_back, (left - 1).clamp_min(0))
        self._done, self._last = done + self._future, out[:, -1].detach()
        return out

    def summary(self) -> dict[str, Any]:
        """JSON-ready: counts and events; a score that is no number is None."""
        events = [asdict(e) | ({} if math.isfinite(e.score) else {"score": None}) for e in self.events]
        return {"counts": dict(self.counts), "events": events}

    def _follow(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Calls still handed back, and frames made before, of each sample; zeros for those that start here."""
        fresh = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
        last = self._last
        if last is None or last.shape != frames[:, -1].shape or last.dtype != frames.dtype:
            return fresh, fresh.clone()
        same = (frames[:, -1] == last).flatten(1).all(1)
        return torch.where(same, self._left, fresh), torch.where(same, self._done, fresh)

    def _check(self, before: Tensor, proposed: Tensor, rows: Parameters, places: Sequence[int], done: Tensor) -> Tensor:
        """Which samples trip a guard, (batch,); counts, records and logs them."""
        out = torch.zeros(len(before), dtype=torch.bool, device=before.device)
        with torch.no_grad():
            for guard in self.guards:
                scores = guard.score(before, proposed, rows)
                trips = tripped(guard, scores)
                out |= trips.to(out.device)
                for row in trips.nonzero()[:, 0].tolist():
                    place = places[row]
                    event = Event(int(done[place]), place, guard.name, float(scores[row]), float(guard.threshold))
                    self.events.append(event)
                    self.counts[f"guard {guard.name}"] += 1
                    logger.info(
                        "step %d, sample %d: %s is %.3g, allowed is %.3g: the solver takes over",
                        event.step,
                        place,
                        guard.name,
                        event.score,
                        event.threshold,
                    )
        return out

    def _require_finite(self, frames: Tensor) -> None:
        bad = ~torch.isfinite(frames[:, -self.solver.history :]).flatten(1).all(1)
        if bool(bad.any()):
            raise ValueError(
                f"`frames` holds NaN or infinite values in trajectory {int(bad.nonzero()[0])} of the batch, from which"
                " the solver cannot go on either: look for where they come from."
            )
