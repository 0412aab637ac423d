import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.baselines import Persistence
from cliffsteer.coupling import Repeated
from cliffsteer.coupling.tradeoff import Point, Problem, as_json, gap_closed, verdict, with_speedups
from cliffsteer.solvers import create


def point(label, kind, error, seconds):
    return Point(label, kind, (8, 8), error, (error,), seconds)


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
    assert text.startswith("From an error of 0.2 on it pays to leave the native solver: between is 2 times cheaper")
    assert "No measured solver is as accurate as better than all (0.01)." in text
    assert as_json(with_speedups(others))[3]["error"] is None


def test_a_loss_is_said_as_plainly():
    points = with_speedups([*SOLVERS, point("slow", "surrogate", 0.4, 10.0)])
    assert verdict(points) == (
        "Nothing pays here: the native solver reaches the error of the best, slow (0.4), in 0.1 of its time."
    )
    assert verdict(SOLVERS) == "There was nothing to compare with the solver."


def test_a_correction_closes_a_gap():
    coarse, finer = (Point(str(n), "solver", (n, n), error, (error,), 1.0) for n, error in ((8, 0.4), (16, 0.2)))
    corrected = point("corrected", "coupling", 0.1, 1.0)
    share, against = gap_closed([coarse, finer, corrected], "8", "corrected")
    assert share == pytest.approx(1.5)
    assert against is finer
    assert gap_closed([coarse, corrected], "8", "corrected") is None
    assert gap_closed([finer, coarse, corrected], "16", "corrected") is None


def test_peers_are_shown_and_not_judged():
    points = with_speedups([*SOLVERS, point("PhiFlow alone", "peer", 0.3, 0.01)])
    assert verdict(points) == "There was nothing to compare with the solver."


def test_frames_at_the_start_may_be_skipped():
    solver = create("turbulence", resolution=12, scale=3.0, substeps=2)
    early, late = (Problem(solver, solver.grid, [0], steps=steps, skip=skip) for steps, skip in ((3, 0), (1, 2)))
    torch.testing.assert_close(late.truth, early.truth[:, 2:], rtol=0, atol=0)


def test_everyone_starts_from_the_reference():
    solvers = {n: create("turbulence", resolution=n, scale=3.0, substeps=2) for n in (12, 16, 24)}
    problem = Problem(solvers[24], solvers[16].grid, [0, 1], every=2, before=2, steps=2, repeats=1)
    assert problem.truth.shape == (2, 2, 4, 16, 16)
    same = problem.solver(solvers[24], "24")
    assert same.error < 1e-12
    coarse, fine = (problem.solver(solvers[n], str(n)) for n in (12, 16))
    assert fine.error < coarse.error < 0.5
    through_frames = problem.stepper(Repeated(solvers[16], 2), "16")
    assert through_frames.error == pytest.approx(fine.error, rel=1e-2, abs=1e-6)
    still = problem.stepper(Persistence(solvers[16].spec, solvers[16].grid, 0.2), "still", "surrogate")
    assert still.error > 2 * coarse.error
    assert still.errors[0] < still.errors[1]
    assert torch.isfinite(problem.frames).all()
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        Problem(solvers[12], Grid((12, 12)), [0], steps=0)
