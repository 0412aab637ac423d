import statistics

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.baselines import Persistence
from cliffsteer.coupling import Repeated
from cliffsteer.coupling.tradeoff import Candidate, Problem
from cliffsteer.solvers import create


def test_frames_at_the_start_may_be_skipped():
    solver = create("turbulence", resolution=12, scale=3.0, substeps=2)
    early, late = (Problem(solver, solver.grid, [0], steps=steps, skip=skip) for steps, skip in ((3, 0), (1, 2)))
    torch.testing.assert_close(late.truth, early.truth[:, 2:], rtol=0, atol=0)


def test_everyone_starts_from_the_reference():
    solvers = {n: create("turbulence", resolution=n, scale=3.0, substeps=2) for n in (12, 16, 24)}
    problem = Problem(solvers[24], solvers[16].grid, [0, 1], every=2, before=2, steps=2, repeats=1)
    assert problem.truth.shape == (2, 2, 4, 16, 16)
    candidates = [problem.solver(solvers[n], str(n)) for n in (24, 12, 16)]
    candidates.append(problem.stepper(Repeated(solvers[16], 2), "through frames"))
    candidates.append(problem.stepper(Persistence(solvers[16].spec, solvers[16].grid, 0.2), "still", "surrogate"))
    assert all(candidate.is_finite and candidate.device.type == "cpu" for candidate in candidates)
    same, coarse, fine, through_frames, still = problem.measure(candidates)
    assert same.error < 1e-12
    assert fine.error < coarse.error < 0.5
    assert through_frames.error == pytest.approx(fine.error, rel=1e-2, abs=1e-6)
    assert still.error > 2 * coarse.error
    assert still.errors[0] < still.errors[1]
    assert torch.isfinite(problem.frames).all()
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        Problem(solvers[12], Grid((12, 12)), [0], steps=0)


def test_candidates_are_timed_in_turns():
    solver = create("turbulence", resolution=12, scale=3.0, substeps=2)
    problem = Problem(solver, solver.grid, [0], steps=2, repeats=4)
    order = []

    def timed(label, seconds):
        remaining = iter(seconds)

        def roll():
            order.append(label)
            return next(remaining)

        return Candidate(label, "solver", (12, 12), (0.1, 0.2), torch.device("cpu"), roll)

    first, second = problem.measure([timed("a", [4.0, 2.0, 6.0, 8.0]), timed("b", [1.0] * 4)])
    assert order == ["a", "b"] * 4
    assert first.seconds == statistics.median([2.0, 1.0, 3.0, 4.0])  # of two frames each
    assert first.quartiles == (1.75, 3.25)
    assert second.quartiles == (0.5, 0.5)
    assert (first.error, first.errors) == (0.2, (0.1, 0.2))


def test_another_time_step_is_refused():
    solver = create("turbulence", resolution=12, scale=3.0, substeps=2)
    problem = Problem(solver, solver.grid, [0], every=2, steps=1)
    message = r"`still` has the time step 0.1, but frames of the reference are 0.2 apart"
    with pytest.raises(ValueError, match=message):
        problem.stepper(Persistence(solver.spec, solver.grid, 0.1), "still")
    with pytest.raises(ValueError, match=r"`slower` has the time step 0\.4"):
        problem.solver(create("turbulence", resolution=12, scale=3.0, substeps=4, dt=0.2), "slower")
