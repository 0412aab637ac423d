"""Student's numbers are those of the tables."""

import math
import statistics

import pytest

from cliffsteer.intervals import Estimate, estimate, student_t


@pytest.mark.parametrize(
    ("freedom", "level", "t"),
    [(1, 0.95, 12.7062047), (2, 0.95, 4.3026527), (3, 0.9, 2.3533634), (9, 0.95, 2.2621572), (30, 0.99, 2.7499957)],
)
def test_quantiles_of_students_distribution(freedom, level, t):
    assert student_t(freedom, level) == pytest.approx(t, rel=1e-7)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    assert student_t(100_000) == pytest.approx(1.959964, rel=1e-4)


def test_mean_error_and_interval():
    found = estimate([0.1, 0.2, 0.4])
    assert found.mean == pytest.approx(0.7 / 3)
    assert found.error == pytest.approx(statistics.stdev([0.1, 0.2, 0.4]) / math.sqrt(3))
    assert found.half == pytest.approx(4.3026527 * found.error)
    assert estimate([0.5]) == Estimate(0.5, None, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, None], [1.0, math.inf], [math.nan]])
def test_a_run_that_diverged_leaves_no_mean(values):
    assert estimate(values) is None


def test_refusals():
    with pytest.raises(ValueError, match=r"`freedom` \(=0\) must be at least 1"):
        student_t(0)
    with pytest.raises(ValueError, match=r"`level` \(=1\) between 0 and 1"):
        student_t(1, 1)
