"""A surrogate with guards: calibrated, on data like those of its training, and on others."""

import copy
import json
import logging
import math

import numpy as np
import pytest
import torch

from cliffsteer import Grid, Stepper, rollout
from cliffsteer.coupling import Guarded, calibrate, checkpointed_rollout, load_guards, save_guards
from cliffsteer.coupling.budgets import EnergyBudget
from cliffsteer.coupling.calibration import create_guard, describe_guards, joint_thresholds
from cliffsteer.coupling.guarded import missed
from cliffsteer.coupling.guards import Energy, Finite, Residual
from cliffsteer.metrics import FieldErrors
from cliffsteer.normalization import Normalization
from cliffsteer.projection import DivergenceFree, Projected
from cliffsteer.solvers import create


@pytest.fixture(scope="module")
def calibrated(smoke):
    descriptions = describe_guards(smoke.surrogate, smoke.train)
    guards = [create_guard(description, smoke.surrogate) for description in descriptions]
    return descriptions, guards, calibrate(guards, smoke.surrogate, smoke.valid, rate=0.1)


@pytest.fixture
def guarded(smoke, calibrated):
    return Guarded(smoke.solver, smoke.surrogate, calibrated[1])


def start(smoke, seeds, steps=2, **parameters):
    """A frame that the solver reached, and the parameters."""
    state = smoke.solver.initial(seeds)
    given = {**state.parameters, **parameters}
    return rollout(smoke.solver, smoke.solver.observe(state), steps, given)[:, -1:], given


def error(spec, predicted, truth):
    measure = FieldErrors(spec, truth.shape[1])
    measure.update(predicted, truth)
    return measure.compute()["overall"]["nrmse"][-1]


class Scaled:
    """A surrogate whose output is scaled."""

    def __init__(self, surrogate, factor):
        self.surrogate, self.factor = surrogate, factor
        self.spec, self.grid, self.dt, self.history = surrogate.spec, surrogate.grid, surrogate.dt, surrogate.history

    def step(self, frames, parameters=None):
        return self.factor * self.surrogate.step(frames, parameters)


# --------------------------------------------------------------------------------------------------- calibration


def test_guards_are_those_that_the_data_obey(calibrated):
    kinds = {(d["kind"], d.get("field")) for d in calibrated[0]}
    assert {("finite", None), ("divergence", "velocity"), ("negative", "density"), ("novelty", None)} <= kinds
    assert ("mean", "density") not in kinds  # semi-Lagrangian advection loses smoke
    assert not any(kind == "curl" for kind, _ in kinds)


def test_false_alarms_come_as_often_as_wanted(smoke, calibrated):
    report = calibrated[2]
    assert report["steps"] == len(smoke.valid) == 120
    assert 0.02 < report["alarms"] <= report["bound"] <= 0.1
    assert report["guards"]["finite"]["threshold"] == 0
    fresh = Guarded(smoke.solver, smoke.surrogate, calibrated[1])
    frames, parameters = start(smoke, range(200, 260))
    fresh.step(frames, parameters)
    assert fresh.counts["rejected"] <= 13  # 60 steps at 10 %: more than 13 happen once in 500 times


def test_many_guards_together_keep_the_rate_on_fresh_steps():
    generator = np.random.default_rng(0)
    n_guards, count, rate, rates = 7, 215, 0.1, []
    for _ in range(200):
        scores = torch.from_numpy(generator.lognormal(size=(count, n_guards)))
        thresholds, bound = joint_thresholds(scores, rate)
        fresh = torch.from_numpy(generator.lognormal(size=(1000, n_guards)))
        rates.append(float((fresh > thresholds).any(1).double().mean()))
    assert bound <= rate
    assert 0.8 * rate < np.mean(rates) <= rate


def test_a_guard_that_is_never_above_rounding_takes_no_steps_from_the_others():
    scores = torch.zeros(100, 2, dtype=torch.float64)
    scores[:, 0] = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    thresholds, bound = joint_thresholds(scores, 0.1)
    assert int((scores > thresholds).any(1).sum()) == 8  # ⌊101 · 0.1⌋ − 2
    assert bound == pytest.approx(10 / 101)
    assert thresholds[1] == 1e-6


class Seen(list):
    """Windows that know which of them were read."""

    def __getitem__(self, index):
        self.read = [*getattr(self, "read", []), index]
        return super().__getitem__(index)


@pytest.mark.parametrize("count", [24, 12])
def test_what_is_usual_is_learned_from_all_times_of_all_trajectories(smoke, count):
    seen, times = Seen(smoke.train), len(smoke.train) // 24  # of 24 trajectories
    describe_guards(smoke.surrogate, seen, count)
    assert len(set(seen.read)) == len(seen.read) == count
    assert {index % times for index in seen.read} == set(range(times))
    assert len({index // times for index in seen.read}) > count / 3


def test_novelty_is_fitted_and_scored_with_the_same_scales(smoke):
    surrogate = copy.deepcopy(smoke.surrogate)
    means = {"density": 100 * surrogate.field_scales["density"]}
    told = surrogate.normalization.to_dict() | {"means": means}
    surrogate.normalization = Normalization.from_dict(surrogate.spec, told)
    found = next(d for d in describe_guards(surrogate, smoke.train) if d["kind"] == "novelty")
    guard = create_guard(found, surrogate)
    batch = {key: torch.stack([window[key] for window in smoke.train]) for key in smoke.train[0]}
    frames, parameters = batch["history"].double(), smoke.solver.spec.unpack_parameters(batch["parameters"])
    expected = guard.features(frames, parameters).mean(0)
    torch.testing.assert_close(guard.mean, expected, rtol=1e-9, atol=1e-9)


def test_a_higher_rate_gives_lower_thresholds(smoke, calibrated):
    guards = [create_guard(description, smoke.surrogate) for description in calibrated[0]]
    report = calibrate(guards, smoke.surrogate, smoke.valid, rate=0.5)
    assert 0.4 < report["alarms"] <= 0.5
    assert all(a.threshold <= b.threshold for a, b in zip(guards, calibrated[1], strict=True))


def test_too_few_windows_are_said(smoke, caplog):
    guard = Energy(smoke.solver.spec, "density", 1.0)
    with caplog.at_level(logging.WARNING):
        report = calibrate([guard], smoke.surrogate, smoke.valid[:10], rate=0.01)
    assert "10 steps are too few for a rate of 0.01 with 1 guards: none may trip" in caplog.text
    assert "at most 0.0909; 99 are needed" in caplog.text
    assert report["alarms"] == 0


def test_steps_of_a_rollout_may_be_scored_too(smoke):
    guard = Energy(smoke.solver.spec, "velocity", 1.0)
    once = calibrate([guard], smoke.surrogate, smoke.valid, rate=0.05)
    longer = calibrate([guard], smoke.surrogate, smoke.valid, rate=0.05, steps=3)
    assert longer["steps"] == 3 * once["steps"]


def test_guards_survive_their_file(smoke, calibrated, tmp_path):
    descriptions, guards, facts = calibrated
    path = save_guards(tmp_path / "guards.json", descriptions, guards, facts, smoke.surrogate)
    again = [create_guard(d, smoke.surrogate) for d in load_guards(path)]
    assert [g.threshold for g in again] == [g.threshold for g in guards]
    frames, parameters = start(smoke, [3])
    proposed = smoke.surrogate.step(frames, parameters)
    for one, other in zip(again, guards, strict=True):
        assert torch.equal(one.score(frames, proposed, parameters), other.score(frames, proposed, parameters))
    create_guard(load_guards(path)[0], copy.deepcopy(smoke.surrogate).double())
    other = copy.deepcopy(smoke.surrogate)
    next(other.network.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="'finite' was set for other weights than those of this surrogate"):
        create_guard(load_guards(path)[0], other)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="holds no guards that this cliffsteer reads"):
        load_guards(path)
    path.write_text(json.dumps({"format": "other", "format_version": 1}))
    with pytest.raises(ValueError, match=r"\(format other 1\)"):
        load_guards(path)
    with pytest.raises(FileNotFoundError, match="cliffsteer calibrate run="):
        load_guards(tmp_path / "none.json")


def test_thresholds_of_an_ensemble_belong_to_the_weights_of_its_members(smoke, tmp_path):
    member = copy.deepcopy(smoke.surrogate)
    next(member.network.parameters()).mul_(1.01)
    description = {"kind": "disagreement", "runs": ["runs/b"]}
    guard = create_guard(description, smoke.surrogate, members=[member])
    facts = calibrate([guard], smoke.surrogate, smoke.valid, rate=0.05)
    path = save_guards(tmp_path / "guards.json", [description], [guard], facts, smoke.surrogate)
    (found,) = load_guards(path)
    assert create_guard(found, smoke.surrogate, members=[member]).threshold == guard.threshold
    next(member.network.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="'disagreement' was set for other weights than those of these members"):
        create_guard(found, smoke.surrogate, members=[member])
    content = json.loads(path.read_text())
    del content["guards"][0]["members_sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"`members_sha256` of the guard 'disagreement' is missing.\): `cliffsteer cal"
    ):
        load_guards(path)


def test_what_cannot_be_calibrated_is_refused(smoke):
    with pytest.raises(ValueError, match=r"`rate` \(=1.5\) must lie between 0 and 1"):
        calibrate([Finite()], smoke.surrogate, smoke.valid, rate=1.5)
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        calibrate([Finite()], smoke.surrogate, smoke.valid, steps=0)
    with pytest.raises(ValueError, match="`windows` is empty"):
        calibrate([Finite()], smoke.surrogate, [])
    with pytest.raises(ValueError, match="`energy:density` has no finite score for 4 of 4"):
        calibrate([Energy(smoke.solver.spec, "density", 1.0)], Scaled(smoke.surrogate, math.nan), smoke.valid[:4])
    with pytest.raises(ValueError, match=r"`kind` \(='speed'\) of a guard must be one of finite, courant"):
        create_guard({"kind": "speed"}, smoke.surrogate)
    with pytest.raises(
        ValueError, match=r"`field` \(='densty'\) of a guard 'energy' is unknown: did you mean 'density'"
    ):
        create_guard({"kind": "energy", "field": "densty"}, smoke.surrogate)
    with pytest.raises(ValueError, match="`field` of the guard 'courant' is missing"):
        create_guard({"kind": "courant"}, smoke.surrogate)
    with pytest.raises(ValueError, match="`mean` of the guard 'novelty' is missing"):
        create_guard({"kind": "novelty"}, smoke.surrogate)
    with pytest.raises(ValueError, match=r"`threshold` \(='1'\) of the guard 'finite' must be a finite number"):
        create_guard({"kind": "finite", "threshold": "1"}, smoke.surrogate)
    with pytest.raises(ValueError, match="`short` is missing"):
        create_guard({"kind": "residual"}, smoke.surrogate)


@pytest.mark.parametrize("lacking", ["threshold", "mean"])
def test_a_file_that_lacks_something_is_refused(smoke, calibrated, tmp_path, lacking):
    path = save_guards(tmp_path / "guards.json", *calibrated, smoke.surrogate)
    content = json.loads(path.read_text())
    del content["guards"][-1][lacking]
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=rf"reads \(`{lacking}` of the guard 'novelty' is missing.\): `cliffsteer calib"
    ):
        load_guards(path)


# -------------------------------------------------------------------------------------------------------- steps


def test_it_is_a_stepper_and_the_surrogate_where_nothing_trips(smoke, guarded):
    assert isinstance(guarded, Stepper)
    frames, parameters = start(smoke, range(200, 206))
    out = guarded.step(frames, parameters)
    tripped = {event.sample for event in guarded.events}
    free = [i for i in range(6) if i not in tripped]
    assert free
    torch.testing.assert_close(out[free], smoke.surrogate.step(frames, parameters)[free], rtol=0, atol=1e-6)
    assert guarded.counts["surrogate"] == len(free)


def test_each_sample_is_decided_alone(smoke, guarded, caplog):
    frames, parameters = start(smoke, range(200, 204))
    frames[1] += 0.5 * torch.randn(frames[1].shape, generator=torch.Generator().manual_seed(0)) * frames[1].ne(0)
    parameters["buoyancy"][2] *= 8
    with caplog.at_level(logging.INFO):
        out = guarded.step(frames, parameters)
    solved = smoke.solver.step(frames, parameters)
    for i in (1, 2):
        torch.testing.assert_close(out[i], solved[i], rtol=0, atol=1e-12)
    assert {event.sample for event in guarded.events} >= {1, 2}
    event = next(event for event in guarded.events if event.sample == 1)
    assert event.step == 0
    assert event.score > event.threshold
    assert f"step 0, sample 1: {event.guard} is" in caplog.text
    summary = guarded.summary()
    assert summary["counts"]["rejected"] >= 2
    assert json.loads(json.dumps(summary))["events"][0]["step"] == 0


@pytest.mark.parametrize("weights", ["nan", "scaled"])
def test_a_broken_surrogate_leaves_the_solver(smoke, calibrated, weights):
    broken = copy.deepcopy(smoke.surrogate)
    if weights == "nan":
        next(broken.network.parameters()).fill_(math.nan)
    else:
        broken = Scaled(broken, 3.0)
    guarded = Guarded(smoke.solver, broken, calibrated[1])
    frames, parameters = start(smoke, range(3))
    assert torch.equal(rollout(guarded, frames, 3, parameters), rollout(smoke.solver, frames, 3, parameters))
    assert guarded.counts["rejected"] == 9


FAMILIES = ("strong buoyancy", "viscous", "noise", "scaled", "shifted", "fast")


@pytest.mark.parametrize("case", FAMILIES)
def test_on_any_family_a_rollout_ends_no_worse_than_in_training(smoke, calibrated, case):
    spec, guarded = smoke.solver.spec, Guarded(smoke.solver, smoke.surrogate, calibrated[1], hand_back=1)

    def errors(frames, parameters):
        truth = rollout(smoke.solver, frames, 5, parameters)
        return [error(spec, rollout(s, frames, 5, parameters), truth) for s in (guarded, smoke.surrogate)]

    frames, parameters = start(smoke, range(300, 308))
    kept, usual = errors(frames, parameters)
    assert kept <= usual
    assert guarded.counts["surrogate"] > 5
    guarded.reset()
    density, velocity = (spec.slots[name] for name in ("density", "velocity"))
    if case == "strong buoyancy":
        parameters["buoyancy"] = 5 * parameters["buoyancy"]
    elif case == "viscous":
        parameters["viscosity"] = torch.full((8, 1), 0.2, dtype=torch.float64)
    elif case == "scaled":
        frames = 3 * frames
    elif case == "shifted":
        frames[:, :, density.start : density.stop] += 1.0
    elif case == "fast":
        frames[:, :, velocity.start : velocity.stop] *= 10
    else:
        noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0), dtype=frames.dtype)
        frames = frames + 0.3 * noise.masked_fill(~spec.occupied.view(-1, 1, 1), 0)
    ours, alone = errors(frames, parameters)
    assert ours < usual < alone
    first = {event.sample for event in guarded.events if event.step == 0}
    assert first == set(range(8))  # no sample gets a step of the surrogate at first; noise is gone after some
    for event in guarded.events:
        assert all(0 <= i < 12 for i in event.cell)
        assert event.error > 0


def test_other_grids_and_boundaries_are_refused_before_a_step(smoke, calibrated):
    options = {"size": 12.0, "dt": 1.0}
    with pytest.raises(ValueError, match=r"`surrogate` has a grid with shape \[12, 12\], expected"):
        Guarded(create("smoke", resolution=24, **options), smoke.surrogate, calibrated[1])
    other = copy.copy(smoke.solver)
    other.grid = Grid((12, 12), 1.0, "periodic")
    with pytest.raises(ValueError, match="`surrogate` has a grid with boundary"):
        Guarded(other, smoke.surrogate, calibrated[1])
    with pytest.raises(ValueError, match="must be the grid's"):
        Guarded(smoke.solver, smoke.surrogate, calibrated[1]).step(torch.zeros(1, 1, 4, 24, 24))


def test_an_event_says_where_the_rejected_step_was_wrong(smoke):
    solved = rollout(smoke.solver, smoke.solver.observe(smoke.solver.initial([0])), 3)[0]
    wrong = solved.clone()
    wrong[1, 1, 4, 7] += 5.0
    cell, size = missed(smoke.solver.spec, wrong, solved)
    assert cell == (4, 7)
    assert missed(smoke.solver.spec, solved, solved)[1] == 0 < size
    wrong[0, 0, 2, 3] = math.nan
    cell, size = missed(smoke.solver.spec, wrong, solved)
    assert cell == (2, 3)
    assert math.isnan(size)


def test_after_a_trip_the_solver_keeps_the_sample_for_some_calls(smoke):
    class Once:
        """Trips where the density of the first cell is above 1."""

        name, threshold, fixed = "once", 1.0, True

        def score(self, before, proposed, parameters=None):
            return before[:, -1, 0, 0, 0]

    class Shift:
        def __init__(self, like):
            self.spec, self.grid, self.dt, self.history = like.spec, like.grid, like.dt, 1

        def step(self, frames, parameters=None):
            return frames[:, -1:] + self.by

    solver, surrogate = Shift(smoke.solver), Shift(smoke.solver)
    solver.by, surrogate.by = -0.01, 0.25
    guarded = Guarded(solver, surrogate, [Once()], hand_back=2)
    frames = torch.zeros(2, 1, 4, 12, 12)
    frames[1] = 1.1
    seen = rollout(guarded, frames, 9)[:, :, 0, 0, 0]
    up, down = 0.25, -0.01
    expected = torch.tensor([[up] * 5 + [down] * 4, [down] * 9]).cumsum(1)
    torch.testing.assert_close(seen, frames[:, :, 0, 0, 0] + expected)
    assert [(e.step, e.sample) for e in guarded.events] == [(0, 1), (3, 1), (5, 0), (6, 1), (8, 0)]
    assert dict(guarded.counts) == {"surrogate": 5, "rejected": 5, "handed back": 8, "guard once": 5}
    again = guarded.step(frames)  # another trajectory: nothing is handed back, steps count from 0
    torch.testing.assert_close(again[0], frames[0] + 0.25)
    assert guarded.events[-1].step == 0
    guarded.reset()
    assert not guarded.events
    assert not guarded.counts


def test_what_looks_usual_passes_all_guards_but_the_residual(smoke, calibrated):
    class Wrong(Scaled):
        def step(self, frames, parameters=None):
            return self.factor(frames, self.surrogate.step(frames, parameters))

    options = {"size": 12.0, "scale": 5.0, "buoyancy_range": (0.1, 0.3)}
    short = create("smoke", resolution=12, dt=1 / 64, **options)
    residual = Residual(short, smoke.solver.dt, smoke.surrogate.normalization.deltas)
    calibrate([residual], smoke.surrogate, smoke.valid, rate=0.1)
    frames, parameters = start(smoke, range(300, 308))
    cases = (
        (lambda before, new: before[:, -1:], 6),  # no motion is as wrong as the change is large
        (lambda before, new: mirrored(smoke.solver.spec, new), 8),
    )
    for wrong, caught in cases:
        stepper = Wrong(smoke.surrogate, wrong)
        usual = Guarded(smoke.solver, stepper, calibrated[1])
        usual.step(frames, parameters)
        assert usual.counts["rejected"] <= 2  # as of its own steps
        strict = Guarded(smoke.solver, stepper, [*calibrated[1], residual])
        strict.step(frames, parameters)
        assert strict.counts["rejected"] >= caught


def mirrored(spec, frames):
    """Frames seen in a mirror across the first axis."""
    out = frames.flip(3).clone()
    out[:, :, spec.slots["velocity"].start] *= -1
    return out


def test_values_that_are_no_numbers_never_pass(smoke):
    loose = Energy(smoke.solver.spec, "density", 1.0)  # its threshold is infinite
    guarded = Guarded(smoke.solver, smoke.surrogate, [loose])
    assert [guard.name for guard in guarded.guards] == ["finite", "energy:density"]
    assert len(Guarded(smoke.solver, smoke.surrogate, [Finite(), loose]).guards) == 2


def test_a_rejected_sample_leaves_the_gradient_of_the_weights_alone(smoke, calibrated):
    class Root:
        """u + √(w u) of the density: of finite output where w u is 0, and of no finite gradient."""

        def __init__(self, like):
            self.spec, self.grid, self.dt, self.history = like.spec, like.grid, like.dt, 1
            self.weight = torch.ones((), dtype=torch.float64, requires_grad=True)

        def step(self, frames, parameters=None):
            new = frames[:, -1:].clone()
            return torch.cat([new[:, :, :1] + (self.weight * new[:, :, :1]).sqrt(), new[:, :, 1:]], 2)

    surrogate = Root(smoke.solver)
    guarded = Guarded(smoke.solver, surrogate, [Finite()])
    frames, parameters = start(smoke, range(2))
    frames[:, :, 0] = frames[:, :, 0].abs() + 0.1
    frames[1, :, 0] *= -1
    out = guarded.step(frames, parameters)
    assert guarded.counts["rejected"] == 1
    (found,) = torch.autograd.grad(out.sum(), surrogate.weight)
    torch.testing.assert_close(found, frames[0, :, 0].sqrt().sum() / 2)


@pytest.mark.parametrize("hand_back", [0, 1])
def test_a_checkpointed_rollout_decides_as_before(smoke, hand_back, caplog):
    spec = smoke.solver.spec
    law = DivergenceFree(spec, smoke.solver.grid)
    frames, parameters = start(smoke, range(3))
    frames[1] *= 2
    found, told = {}, {}
    for advance in (rollout, checkpointed_rollout):
        factor = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
        budget = EnergyBudget(spec, "velocity", 1.0)
        budget.threshold = 0.2
        guarded = Guarded(smoke.solver, Scaled(smoke.surrogate, factor), [budget], hand_back)
        x = frames.clone().requires_grad_()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            out = advance(Projected(guarded, [law]), x, 5, parameters)
            before = guarded.summary()
            loss = out.square().sum()
            found[advance] = torch.autograd.grad(loss, [x, factor], retain_graph=True)
            again = torch.autograd.grad(loss, [x, factor])
        torch.testing.assert_close(again, found[advance], rtol=0, atol=0)
        assert guarded.summary() == before
        assert len(caplog.records) == len(guarded.events)
        told[advance] = before, guarded.step(out[:, -1:].detach(), parameters)
    torch.testing.assert_close(found[checkpointed_rollout], found[rollout], rtol=1e-12, atol=1e-12)
    (counts, last), (expected, truth) = told[checkpointed_rollout], told[rollout]
    assert counts == expected
    assert counts["counts"]["rejected"] > 0 < counts["counts"]["surrogate"]
    torch.testing.assert_close(last, truth, rtol=0, atol=0)


def test_a_trajectory_goes_on_through_a_projection(smoke):
    class Always(Finite):
        def score(self, before, proposed, parameters=None):
            return torch.full((len(before),), 1.0)

    guarded = Guarded(smoke.solver, smoke.surrogate, [Always()], hand_back=1)
    frames, parameters = start(smoke, range(2))
    frames = frames.float()
    law = DivergenceFree(smoke.solver.spec, smoke.solver.grid)
    assert not torch.equal(law(guarded.step(frames, parameters), frames), guarded.step(frames, parameters))
    guarded.reset()
    rollout(Projected(guarded, [law]), frames, 4, parameters)
    assert guarded.counts == {"surrogate": 0, "rejected": 4, "handed back": 4, "guard finite": 4}
    assert [(event.step, event.sample) for event in guarded.events] == [(0, 0), (0, 1), (2, 0), (2, 1)]


def test_what_cannot_be_guarded_is_refused(smoke, guarded):
    with pytest.raises(ValueError, match="`guards` is empty"):
        Guarded(smoke.solver, smoke.surrogate, [])
    with pytest.raises(ValueError, match=r"`hand_back` \(=-1\) must be a whole number, at least 0"):
        Guarded(smoke.solver, smoke.surrogate, [Finite()], -1)
    frames, parameters = start(smoke, range(2))
    frames[1, 0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite values in trajectory 1 of the batch"):
        guarded.step(frames, parameters)
