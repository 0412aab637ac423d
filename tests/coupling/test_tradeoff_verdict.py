import math

import pytest

from cliffsteer.coupling.tradeoff import Point
from cliffsteer.coupling.tradeoff_verdict import Gap, as_json, gaps_closed, paying, verdict, with_speedups


def point(label, kind, error, seconds, cells=8):
    return Point(label, kind, (cells, cells), error, (error,), seconds, (seconds, seconds))


SOLVERS = [point("8", "solver", 0.4, 1.0), point("16", "solver", 0.1, 4.0), point("32", "solver", 0.2, 9.0)]


def test_speedups_are_against_the_solver_at_the_same_error():
    others = [
        point("between", "coupling", 0.2, 1.0),
        point("worse than all", "surrogate", 0.9, 0.5),
        point("better than all", "coupling", 0.01, 2.0),
        point("diverged", "surrogate", math.nan, 0.1),
        point("as good as the best", "coupling", 0.0995, 8.0),
    ]
    found = {p.label: p.speedup for p in with_speedups([*SOLVERS, *others])}
    assert found["8"] is None
    assert found["between"] == pytest.approx(2.0)  # half way from 0.4 to 0.1 in logarithms, so √(1 · 4)
    assert found["worse than all"] == pytest.approx(2.0)
    assert found["better than all"] is None
    assert found["diverged"] == 0
    assert found["as good as the best"] == pytest.approx(0.5)
    text = verdict(with_speedups([*SOLVERS, *others]))
    assert text.startswith("It pays to leave the native solver for errors from 0.01 to 0.4 and from 0.9 on (no")
    assert "The largest gain at the same error is 2 times, by between at 0.2." in text
    assert "No measured solver is as accurate as better than all (0.01)." in text
    assert text.endswith("diverged diverged.")
    assert as_json(with_speedups(others))[3]["error"] is None


def test_a_loss_is_said_as_plainly():
    points = with_speedups([*SOLVERS, point("slow", "surrogate", 0.4, 10.0)])
    assert verdict(points) == (
        "Nothing pays here: the native solver reaches the error of the best, slow (0.4), in 0.1 of its time."
    )
    assert verdict(SOLVERS) == "There was nothing to compare with the solver."


def test_it_pays_only_until_the_solver_is_as_cheap():
    half_way = point("half way", "coupling", 0.15, 2.0)  # the solver takes 2 s at √(0.4 · 0.1)
    assert paying(with_speedups([*SOLVERS, half_way])) == [(0.15, pytest.approx(0.2))]
    exact = [point("8", "solver", 0.4, 1.0), point("exact", "solver", 0.0, 4.0)]
    assert paying(with_speedups([*exact, half_way])) == [(0.15, 0.4)]
    dear = point("dear and better than all", "coupling", 0.01, 5.0)
    assert paying(with_speedups([*SOLVERS, dear])) == [(0.01, 0.1)]
    assert paying(with_speedups([*SOLVERS, point("slow", "surrogate", 0.4, 10.0)])) == []
    assert paying(with_speedups([half_way, point("diverged", "solver", math.nan, 1.0)])) == []
    assert paying([half_way]) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (3.63, "replace is no better than a field of zeros: its error is 3.63, that of zeros 1."),
        (1.0, "replace is no better than a field of zeros: its error is 1, that of zeros 1."),
        (math.inf, "replace diverged."),
        (math.nan, "replace diverged."),
    ],
)
def test_what_is_of_no_use_is_not_praised(error, text):
    fast = point("replace", "surrogate", error, 0.01)
    points = with_speedups([*SOLVERS, fast])
    assert points[-1].speedup == (pytest.approx(100) if math.isfinite(error) else 0)
    assert paying(points) == []
    assert verdict(points) == f"Nothing pays here. {text}"
    good = point("good", "coupling", 0.2, 1.0)
    assert verdict(with_speedups([*SOLVERS, fast, good])) == (
        "It pays to leave the native solver for errors from 0.2 to 0.4."
        f" The largest gain at the same error is 2 times, by good at 0.2. {text}"
    )


def test_without_a_stable_solver_no_time_of_one_is_made_up():
    broken = [point("8", "solver", math.nan, 1.0), point("16", "solver", math.inf, 4.0)]
    others = [point("replace", "surrogate", 0.3, 0.1), point("alternate", "coupling", math.nan, 0.1)]
    points = with_speedups([*broken, *others])
    assert [p.speedup for p in points] == [None] * 4
    assert paying(points) == []
    assert verdict(points) == ("No measured solver was stable, so there is none to compare with. alternate diverged.")


def test_gaps_are_to_every_finer_solver_and_one_of_them_has_twice_the_cells():
    coarse, near, twice, worse = (
        point(str(n), "solver", error, 1.0, n) for n, error in ((8, 0.4), (12, 0.3), (16, 0.2), (32, 0.5))
    )
    points = [worse, twice, near, coarse, point("corrected", "coupling", 0.1, 1.0)]
    assert gaps_closed(points, "8", "corrected") == [
        Gap("12", False, pytest.approx(3.0)),
        Gap("16", True, pytest.approx(1.5)),
        Gap("32", False, None),
    ]
    assert gaps_closed(points, "32", "corrected") == []


def test_peers_are_shown_and_not_judged():
    points = with_speedups([*SOLVERS, point("PhiFlow alone", "peer", 0.3, 0.01)])
    assert verdict(points) == "There was nothing to compare with the solver."
