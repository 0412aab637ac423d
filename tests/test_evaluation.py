import json

import pytest
import torch

from cliffsteer import Surrogate, rollout
from cliffsteer.baselines import Persistence
from cliffsteer.datasets import Recipe, TrajectoryDataset, WindowDataset, compute_statistics, generate
from cliffsteer.evaluation import equivariance_error, evaluate, rollout_errors, write_metrics
from cliffsteer.solvers import create

OPTIONS = {"resolution": 16, "dt": 3.0, "buoyancy_range": [0.3, 0.6]}
CSRESNET = {"name": "csresnet", "hidden_channels": 3, "blocks": [1], "kernel_size": 3}
RESNET = {"name": "resnet", "hidden_channels": 6, "blocks": [1], "kernel_size": 3}


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    recipe = Recipe("smoke", OPTIONS, {"test": 3}, frames=8, batch=2, skip=1)
    return TrajectoryDataset(generate(recipe, tmp_path_factory.mktemp("data") / "d", progress=False), "test")


def surrogate(data, model=CSRESNET, history=2):
    torch.manual_seed(0)
    return Surrogate.create(model, data.spec, data.grid, data.dt, history, 1, compute_statistics(data)).eval()


def test_errors_are_those_of_a_slow_loop_over_all_windows(held_out):
    stepper = surrogate(held_out)
    result = evaluate(stepper, held_out, rollout_steps=3, rollout_stride=2)
    assert result["dataset"]["windows"] == 3 * 6
    assert result["rollout"]["windows"] == 3 * 2
    assert result["dataset"]["split"] == "test"
    parameters = held_out.spec.unpack_parameters(held_out.parameters)
    errors, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for trajectory in range(3):
        given = {name: value[trajectory] for name, value in parameters.items()}
        for start in (0, 2):
            frames = held_out.read(trajectory, start, start + 5)[None]
            with torch.no_grad():
                predicted = rollout(stepper, frames[:, :2], 3, given)
            part = (slice(None), slice(None), slice(1, 3))
            errors += (predicted - frames[:, 2:])[part].double().square().sum((0, 2, 3, 4))
            squares += frames[:, 2:][part].double().square().sum((0, 2, 3, 4))
    nrmse = (errors / squares).sqrt().tolist()
    assert result["rollout"]["model"]["fields"]["velocity"]["nrmse"] == pytest.approx(nrmse, rel=1e-5)


def test_the_first_lead_time_of_rollouts_from_every_frame_is_the_one_step_error(held_out):
    result = evaluate(surrogate(held_out), held_out, rollout_steps=1, rollout_stride=1)
    for name in ("model", "persistence"):
        assert result["one_step"][name] == result["rollout"][name]


def test_the_batch_size_changes_nothing(held_out):
    one, many = (evaluate(surrogate(held_out), held_out, batch_size=size, rollout_steps=2) for size in (1, 7))
    for part in ("one_step", "rollout"):
        for name, values in one[part]["model"]["overall"].items():
            assert many[part]["model"]["overall"][name] == pytest.approx(values, rel=1e-5)


def test_persistence_is_a_stepper_like_any_other(held_out):
    persistence = Persistence(held_out.spec, held_out.grid, held_out.dt)
    result = evaluate(persistence, held_out, rollout_steps=4)
    assert result["one_step"]["model"] == result["one_step"]["persistence"]
    assert result["rollout"]["model"] == result["rollout"]["persistence"]
    curve = result["rollout"]["model"]["overall"]["nrmse"]
    assert curve == sorted(curve)
    assert "equivariance" not in result


def test_delta_scales_make_persistence_the_unit_of_the_loss(held_out):
    windows = WindowDataset(held_out, 1, 1)
    scales = compute_statistics(held_out).deltas
    errors = rollout_errors(Persistence(held_out.spec, held_out.grid, held_out.dt), windows, scales=scales)
    assert errors["overall"]["normalized_mse"] == pytest.approx([1.0], rel=1e-5)


def test_the_solver_itself_beats_persistence_and_needs_its_parameters(held_out):
    solver = create("smoke", **OPTIONS)
    result = evaluate(solver, held_out, rollout_steps=0)
    assert (
        result["one_step"]["model"]["overall"]["nrmse"][0]
        < 0.3 * result["one_step"]["persistence"]["overall"]["nrmse"][0]
    )
    assert "rollout" not in result


def test_histories_are_compared_on_the_same_frames(held_out):
    short, long = surrogate(held_out, history=1), surrogate(held_out, history=3)
    a, b = (evaluate(stepper, held_out, history=3, rollout_steps=2) for stepper in (short, long))
    assert a["one_step"]["persistence"] == b["one_step"]["persistence"]
    assert a["dataset"] == b["dataset"]


def test_a_rotated_test_set_is_as_easy_for_a_steerable_network_and_harder_for_another(held_out):
    for model, which in ((CSRESNET, "one"), (CSRESNET, "all"), (RESNET, "one")):
        result = evaluate(surrogate(held_out, model), held_out, rollout_steps=2, rotated=which)
        assert result["rotated"]["symmetries"] == 7
        for part in ("one_step", "rollout"):
            stored, turned = (r[part]["model"]["overall"]["nrmse"] for r in (result, result["rotated"]))
            assert (turned == pytest.approx(stored, rel=1e-4)) == (model is CSRESNET)


def test_rotated_windows_can_be_left_out_and_settings_measure_the_same_again(held_out):
    stepper = surrogate(held_out)
    result = evaluate(stepper, held_out, rollout_steps=2, stride=3, rotated="none")
    assert "rotated" not in result
    assert evaluate(stepper, held_out, **result["settings"]) == result
    with pytest.raises(ValueError, match=r"`rotated` \(='two'\) must be one of 'one', 'all', 'none'"):
        evaluate(stepper, held_out, rotated="two")


def test_rollouts_are_measured_in_every_way(held_out):
    mass = {"mass": lambda frames: frames[:, :, 0].mean((-1, -2))}
    result = evaluate(create("smoke", **OPTIONS), held_out, rollout_steps=3, quantities=mass)["rollout"]
    assert result["stable"] == {"steps": 3.0, "shortest": 3, "lasting": 1.0, "limit": 1.0}
    assert result["correlation"]["fields"]["density"]["lasting_0.9"] == 1.0
    assert result["correlation"]["fields"]["density"]["time_0.9"] == 9.0  # 3 steps of 3 s
    assert max(result["spectrum"]["fields"]["density"]["error"]["low"]) < 0.1
    assert set(result["divergence"]["model"]["fields"]) == {"velocity"}
    assert list(result["divergence"]) == list(result["drift"])  # one order of keys: who, then fields
    truth = result["drift"]["truth"]
    for who in ("model", "truth"):  # advection by closed walls loses little smoke
        assert result["drift"][who]["quantities"]["mass"] == pytest.approx(truth["quantities"]["mass"], abs=0.02)


def test_boosted_trajectories_are_measured_where_there_is_time(held_out, tmp_path):
    options = {"resolution": 4, "pairs": 1, "width": 0.2}
    still, moving = (
        TrajectoryDataset(
            generate(
                Recipe("maxwell_spacetime", options | {"drift": drift}, {"test": 1}, frames=3, batch=1),
                tmp_path / f"drift{drift}",
                progress=False,
            ),
            "test",
        )
        for drift in (0.0, 0.4)
    )
    result = evaluate(surrogate(still, RESNET, history=1), still, rollout_steps=2, boosted=moving)
    for part in ("one_step", "rollout"):
        errors = [r[part]["persistence"]["overall"]["nrmse"] for r in (result, result["boosted"])]
        assert errors[0] != pytest.approx(errors[1], rel=1e-3)
    assert result["boosted"]["dataset"]["recipe"]["options"]["drift"] == 0.4
    assert result["boosted"]["rollout"]["model"]["overall"]["nrmse"] != result["rollout"]["model"]["overall"]["nrmse"]
    with pytest.raises(ValueError, match="`boosted` needs a grid with an axis of time"):
        evaluate(surrogate(held_out), held_out, boosted=held_out)


def test_equivariance_of_a_steerable_and_of_a_plain_network(held_out):
    exact = evaluate(surrogate(held_out), held_out, rollout_steps=0)["equivariance"]
    assert exact["symmetries"] == 8
    assert exact["relative_error"] < 1e-12
    assert evaluate(surrogate(held_out, RESNET), held_out, rollout_steps=0)["equivariance"]["relative_error"] > 1e-2


def test_equivariance_needs_the_parameters_to_turn_along(held_out):
    stepper = surrogate(held_out)
    window = WindowDataset(held_out, 2, 1)[4]
    frames, parameters = window["history"][None], window["parameters"][None]
    assert equivariance_error(stepper, frames, parameters)[0] < 1e-12

    class Fixed:
        spec, grid, dt, history = stepper.spec, stepper.grid, stepper.dt, stepper.history

        def step(self, frames, _=None):
            return stepper.step(frames, stepper.spec.unpack_parameters(parameters))

    assert equivariance_error(Fixed(), frames, parameters)[0] > 1e-3
    assert stepper.dtype == torch.float32


def test_evaluation_leaves_the_random_state_alone(held_out):
    state = torch.random.get_rng_state()
    stepper = Persistence(held_out.spec, held_out.grid, held_out.dt)
    evaluate(stepper, held_out, rollout_steps=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_metrics_are_json_and_a_rollout_that_explodes_is_null(held_out, tmp_path):
    class Explosion(Persistence):
        def step(self, frames, parameters=None):
            return super().step(frames, parameters) * 1e30

    stepper = Explosion(held_out.spec, held_out.grid, held_out.dt)
    path = write_metrics(evaluate(stepper, held_out, rollout_steps=3), tmp_path / "run" / "metrics.json")
    curve = json.loads(path.read_text())["rollout"]["model"]["overall"]["nrmse"]
    assert curve[0] > 1e20
    assert curve[-1] is None
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.json"]


def test_a_failed_write_keeps_the_old_metrics(tmp_path):
    path = write_metrics({"a": 1.0}, tmp_path / "metrics.json")
    with pytest.raises(TypeError):
        write_metrics({"a": object()}, path)
    assert json.loads(path.read_text()) == {"a": 1.0}


def test_refusals(held_out):
    from dataclasses import replace

    spec, grid, dt = held_out.spec, held_out.grid, held_out.dt
    with pytest.raises(ValueError, match=r"has time step 3.0, but the stepper's is 1.5"):
        evaluate(Persistence(spec, grid, 1.5), held_out)
    with pytest.raises(ValueError, match=r"has a grid with spacing"):
        evaluate(Persistence(spec, replace(grid, spacing=1.0), dt), held_out)
    with pytest.raises(ValueError, match=r"but the stepper is for FieldSpec"):
        evaluate(Persistence(type(spec)((1, 1), spec.dynamic), grid, dt), held_out)
    with pytest.raises(ValueError, match=r"`history` \(=1\) must be at least the stepper's own, 2"):
        evaluate(surrogate(held_out), held_out, history=1)
    with pytest.raises(ValueError, match=r"need 10 frames, but the trajectories have 8"):
        evaluate(surrogate(held_out), held_out, rollout_steps=8)
