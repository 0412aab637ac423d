"""Means with their standard errors and Student's confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean over runs.

    Args:
        mean: the mean.
        error: its standard error s/√n; None for one run.
        half: half the width of its 95 % confidence interval, t · s/√n; None for one run.
        count: n.
    """

    mean: float
    error: float | None
    half: float | None
    count: int


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean, standard error and 95 % interval; None without values, or with one that is no number.

    Args:
        values: of independent runs; None for a run that diverged, and then the mean is none.

    Example:
        >>> estimate([1.0, 2.0, 3.0])
        Estimate(mean=2.0, error=0.5773502691896258, half=2.4841377117194456, count=3)
    """
    if not values or any(v is None or not math.isfinite(v) for v in values):
        return None
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Estimate(mean, None, None, 1)
    error = statistics.stdev(values) / math.sqrt(n)
    return Estimate(mean, error, student_t(n - 1) * error, n)


def student_t(freedom: int, level: float = 0.95) -> float:
    """The number t with P(|T| < t) = level for Student's distribution with whole degrees of freedom.

    Args:
        freedom: degrees of freedom, at least 1.
        level: of confidence.

    Raises:
        ValueError: a number out of its range.

    Source: Abramowitz and Stegun, "Handbook of mathematical functions" (1964), 26.7.3 and 26.7.4, for the probability.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(f"`freedom` (={freedom}) must be at least 1, and `level` (={level}) between 0 and 1.")
    low, high = 0.0, math.pi / 2  # of the angle atan(t/√ν)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _probability(angle: float, freedom: int) -> float:
    """P(|T| < √ν tan angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
