import math

import pytest
import torch

from cliffsteer import Stepper, rollout
from cliffsteer.coupling import Predictor
from cliffsteer.coupling.predictor import potential
from cliffsteer.solvers import create

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # PhiFlow's
OPTIONS = {"resolution": 12, "size": 12.0, "dt": 0.5, "tolerance": 1e-4}


class Knows:
    """A surrogate that is given the answer, off by a share of the change."""

    history = 1

    def __init__(self, solver, answer, share=0.0):
        self.answer, self.share = answer, share
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt

    def step(self, frames, parameters=None):
        return self.answer + self.share * (self.answer - frames)


@pytest.fixture(scope="module")
def start():
    """A frame in motion, and its parameters."""
    solver = create("smoke", **{key: value for key, value in OPTIONS.items() if key != "tolerance"})
    state = solver.initial([0, 1])
    return rollout(solver, solver.observe(state), 2, state.parameters)[:, -1:], state.parameters


@pytest.mark.parametrize("shape", [(7,), (5, 8), (4, 5, 6)])
def test_a_potential_is_found_from_its_slopes(shape):
    p = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p -= p.flatten(1).mean(1).view(-1, *[1] * len(shape))
    spacing = (0.5, 2.0, 1.5)[: len(shape)]
    slopes = [p.diff(dim=axis) / h for axis, h in enumerate(spacing, 1)]
    torch.testing.assert_close(potential(slopes, spacing), p)


@pytest.mark.parametrize("boundary", ["no_slip", [["no_slip", "open"], "slip"]])
def test_a_good_guess_saves_iterations_and_changes_nothing_else(boundary, start):
    frames, parameters = start
    solver = create("smoke_scene", boundary=boundary, **OPTIONS)
    answer = solver.step(frames, parameters)
    count = {}
    surrogates = {"none": None, "exact": Knows(solver, answer), "near": Knows(solver, answer, 0.05)}
    for label, surrogate in surrogates.items():
        predictor = Predictor(solver, surrogate)
        assert isinstance(predictor, Stepper)
        out = predictor.step(frames, parameters)
        torch.testing.assert_close(out, answer, rtol=0, atol=1e-12 if label == "none" else 1e-2)
        (count[label],) = predictor.iterations
    assert count["exact"] < 0.5 * count["none"]
    assert count["exact"] < count["near"] < 0.8 * count["none"]


def test_a_broken_surrogate_costs_no_accuracy(start):
    frames, parameters = start
    solver = create("smoke_phiflow", **OPTIONS)
    predictor = Predictor(solver, Knows(solver, torch.full_like(frames, math.nan)))
    answer = solver.step(frames, parameters)
    torch.testing.assert_close(predictor.step(frames, parameters), answer, rtol=0, atol=1e-2)
    predictor.reset()
    assert predictor.iterations == []


def test_solvers_without_a_pressure_solve_are_refused():
    with pytest.raises(ValueError, match=r"`solver` \(a Smoke\) solves no pressure iteratively"):
        Predictor(create("smoke", resolution=8), None)
    with pytest.raises(ValueError, match="`solver` has an obstacle"):
        Predictor(create("smoke_scene", obstacle_radius=2.0, **OPTIONS), None)
    with pytest.raises(ValueError, match="`surrogate` has a grid with shape"):
        Predictor(create("smoke_phiflow", **OPTIONS), create("smoke", resolution=8))
