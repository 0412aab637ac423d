"""What points of error and time say: the speedup at the same error, where it pays, what a correction gains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cliffsteer.coupling.tradeoff import Point
from cliffsteer.storage import json_ready

ALIKE = 0.01
"""An error that is lower than the best solver's by no more than this share counts as the same."""
OF_ZEROS = 1.0
"""NRMSE of frames that are zero everywhere: what is no better is of no use, however fast."""


@dataclass(frozen=True)
class Gap:
    """How much of the gap between a coarse solver and a finer one its correction closes.

    Args:
        finer: label of the finer solver.
        twice: whether it has twice the cells of the coarse one along each axis.
        share: (e_coarse − e_corrected) / (e_coarse − e_finer), 1 for as good as the finer one; None where the finer
            one is no better than the coarse one, so that there is no gap.
    """

    finer: str
    twice: bool
    share: float | None


def with_speedups(points: Sequence[Point]) -> list[Point]:
    """The points with the speedup of each against the solver at the same error.

    What the solver takes at an error between two of its resolutions is interpolated, linearly in the logarithms; at an
    error above that of all of them it takes the time of the cheapest one. A candidate whose error is no number is worth
    nothing.
    """
    frontier = _frontier(points)
    out = []
    for p in points:
        cost = _cost(frontier, p.error) if frontier and p.kind != "solver" else None
        out.append(replace(p, speedup=None if cost is None else cost / p.seconds))
    return out


def paying(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Intervals of the error that is asked for, in which a surrogate or a coupling is cheaper than the native solver.

    A candidate does for every error from its own on, and pays until the solver, which gets cheaper with it, takes as
    little time. An upper end of infinity says that no measured solver does. What diverged, or is no better than zeros,
    pays for no error.

    Args:
        points: as `with_speedups` gives them.
    """
    frontier = _frontier(points)
    if not frontier:
        return []
    gains = [p for p in _judged(points) if _of_use(p) and (p.speedup is None or p.speedup > 1)]
    spans = [(p.error, _as_cheap(frontier, p.seconds)) for p in gains]
    found: list[tuple[float, float]] = []
    for low, high in sorted(span for span in spans if span[0] < span[1]):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def verdict(points: Sequence[Point]) -> str:
    """Sentences on where a surrogate or a coupling pays, and where it does not."""
    others = _judged(points)
    if others and not _frontier(points):
        return " ".join(["No measured solver was stable, so there is none to compare with.", *_failures(others)])
    useful = [p for p in others if _of_use(p)]
    best = max(useful, key=lambda p: p.speedup or 0.0, default=None)
    spans = [
        f"from {low:.3g} to {high:.3g}"
        if math.isfinite(high)
        else f"from {low:.3g} on (no measured solver is as cheap)"
        for low, high in paying(points)
    ]
    lines = []
    if spans:
        lines.append(f"It pays to leave the native solver for errors {' and '.join(spans)}.")
    if best is not None and best.speedup is not None:
        if best.speedup > 1:
            lines.append(
                f"The largest gain at the same error is {best.speedup:.3g} times, by {best.label} at {best.error:.3g}."
            )
        elif not spans:
            lines.append(
                f"Nothing pays here: the native solver reaches the error of the best, {best.label}"
                f" ({best.error:.3g}), in {best.speedup:.3g} of its time."
            )
    elif others and not useful:
        lines.append("Nothing pays here.")
    lines += [f"No measured solver is as accurate as {p.label} ({p.error:.3g})." for p in useful if p.speedup is None]
    return " ".join([*lines, *_failures(others)]) or "There was nothing to compare with the solver."


def gaps_closed(points: Sequence[Point], uncorrected: str, corrected: str) -> list[Gap]:
    """How much a correction closes of the gaps between a coarse solver and all finer ones, the coarsest of them first.

    Args:
        points: all points.
        uncorrected: label of the coarse solver alone.
        corrected: label of the same with its correction.
    """
    by_label = {p.label: p for p in points}
    coarse, better = by_label[uncorrected], by_label[corrected]
    finer = [p for p in points if p.kind == "solver" and math.prod(p.shape) > math.prod(coarse.shape)]
    found = []
    for p in sorted(finer, key=lambda p: p.shape):
        gap = coarse.error - p.error
        share = (coarse.error - better.error) / gap if gap > 0 else None
        found.append(Gap(p.label, p.shape == tuple(2 * n for n in coarse.shape), share))
    return found


def as_json(found: Sequence[Point | Gap]) -> list[dict[str, Any]]:
    """JSON-ready; what is no finite number is None."""
    return [json_ready(asdict(entry)) for entry in found]


def _judged(points: Sequence[Point]) -> list[Point]:
    return [p for p in points if p.kind in ("surrogate", "coupling")]


def _of_use(p: Point) -> bool:
    return p.error < OF_ZEROS


def _failures(points: Sequence[Point]) -> list[str]:
    """A sentence for each candidate that is of no use."""
    return [
        f"{p.label} is no better than a field of zeros: its error is {p.error:.3g}, that of zeros {OF_ZEROS:g}."
        if math.isfinite(p.error)
        else f"{p.label} diverged."
        for p in points
        if not _of_use(p)
    ]


def _frontier(points: Sequence[Point]) -> list[tuple[float, float]]:
    """(error, seconds) of solvers that no other beats in both, by falling error."""
    measured = [(p.error, p.seconds) for p in points if p.kind == "solver" and math.isfinite(p.error)]
    kept: list[tuple[float, float]] = []
    for error, seconds in sorted(measured, key=lambda m: (m[1], m[0])):
        if not kept or error < kept[-1][0]:
            kept.append((error, seconds))
    return kept


def _cost(frontier: Sequence[tuple[float, float]], error: float) -> float | None:
    """Seconds of the solver at an error, None where it was not measured that well."""
    if not math.isfinite(error):
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


def _as_cheap(frontier: Sequence[tuple[float, float]], seconds: float) -> float:
    """The lowest error that the solver reaches in this time, the inverse of `_cost`; infinite where it takes longer."""
    if seconds < frontier[0][1]:
        return math.inf
    for (high, cheap), (low, dear) in itertools.pairwise(frontier):
        if seconds < dear:
            share = math.log(seconds / cheap) / math.log(dear / cheap)
            return high if low == 0 else high * (low / high) ** share
    return frontier[-1][0]
