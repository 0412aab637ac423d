import math

import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.coupling import Guarded
from cliffsteer.coupling.budgets import ChargeBudget, EnergyBudget, score_all
from cliffsteer.coupling.guards import Energy, tripped
from cliffsteer.solvers import create
from cliffsteer.stepper import rollout

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])


def frames(density, velocity, batch=2):
    out = torch.zeros(batch, 1, 4, 8, 8, dtype=torch.float64)
    out[:, :, 0] = density
    out[:, :, 1], out[:, :, 2] = velocity
    return out


def test_budgets_count_what_was_added():
    before, after = frames(1.0, (0.0, 0.0)), frames(0.5, (3.0, 4.0))
    energy, charge = EnergyBudget(SPEC, "velocity", 5.0), ChargeBudget(SPEC, "velocity", 2.0)
    assert energy.score(before, after).tolist() == pytest.approx([1, 1])
    assert energy.score(after, before).tolist() == [0, 0]  # loss is no fault
    assert charge.score(before, after).tolist() == pytest.approx([2.5, 2.5])
    assert ChargeBudget(SPEC, "density", 1.0).score(before, after).tolist() == pytest.approx([0.5, 0.5])
    spent = {}
    for count in (1, 2, 3):
        (score,), spent = score_all([energy], before, after, None, spent)
        assert score.tolist() == pytest.approx([count] * 2)


def test_a_frame_that_is_not_finite_trips_a_budget():
    after = frames(1.0, (math.nan, 0.0))
    for guard in (EnergyBudget(SPEC, "velocity", 1.0), ChargeBudget(SPEC, "velocity", 1.0)):
        assert tripped(guard, guard.score(frames(1.0, (0.0, 0.0)), after)).tolist() == [True, True]


class Gaining:
    """A solver whose fields come out a little too large."""

    history = 1

    def __init__(self, solver, factor):
        self.solver, self.factor = solver, factor
        self.spec, self.grid, self.dt = solver.spec, solver.grid, solver.dt

    def step(self, frames, parameters=None):
        return self.factor * self.solver.step(frames, parameters)


@pytest.fixture(scope="module")
def flow():
    solver = create("turbulence", resolution=16, scale=4.0, dt=0.05, substeps=2)
    return solver, solver.observe(solver.initial([0, 1]))


def energies(solver, found):
    return solver.spec.unpack(found)["velocity"].square().sum(2).flatten(2).mean(2)


def test_small_gains_of_many_steps_spend_the_budget(flow):
    solver, start = flow
    scale = float(energies(solver, start).mean().sqrt())
    budget, each = EnergyBudget(solver.spec, "velocity", scale), Energy(solver.spec, "velocity", scale)
    budget.threshold, each.threshold = 0.1, 0.1
    surrogate = Gaining(solver, 1.02)
    unbounded = rollout(Guarded(solver, surrogate, [each]), start, 12)
    guarded = Guarded(solver, surrogate, [each, budget])
    bounded = rollout(guarded, start, 12)
    assert {event.guard for event in guarded.events} == {"energy_budget:velocity"}
    first = energies(solver, start)
    assert float((energies(solver, unbounded)[:, -1:] / first).min()) > 1.3
    assert float((energies(solver, bounded)[:, -1:] / first).max()) < 1.1
    assert 0 < guarded.counts["surrogate"] < 12 < guarded.counts["rejected"]


def test_a_new_trajectory_has_a_new_budget(flow):
    solver, start = flow
    budget = EnergyBudget(solver.spec, "velocity", float(energies(solver, start).mean().sqrt()))
    budget.threshold = 0.06
    guarded = Guarded(solver, Gaining(solver, 1.02), [budget])
    rollout(guarded, start, 3)
    spent = guarded.counts["surrogate"]
    rollout(guarded, start.flip(0), 3)
    assert spent > 0
    assert guarded.counts["surrogate"] == 2 * spent


def test_samples_have_budgets_of_their_own(flow):
    solver, start = flow
    budget = EnergyBudget(solver.spec, "velocity", 1.0)
    budget.threshold = 0.1 * float(energies(solver, start)[1])
    small = torch.cat([0.01 * start[:1], start[1:]])
    guarded = Guarded(solver, Gaining(solver, 1.04), [budget])
    rollout(guarded, small, 8)
    assert {event.sample for event in guarded.events} == {1}
