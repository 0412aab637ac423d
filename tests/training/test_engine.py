"""What training makes of its config."""

import subprocess
import sys

import pytest
import torch
from training_runs import same, scalars, weights

from cliffsteer import Surrogate
from cliffsteer.training import ModelConfig, train
from cliffsteer.training.guard import DivergenceError


@pytest.mark.parametrize(
    ("name", "width", "prediction"), [("resnet", 16, "delta"), ("csresnet", 6, "delta"), ("csresnet", 6, "state")]
)
def test_training_lowers_the_validation_loss(small, tmp_path, name, width, prediction):
    images = name == "resnet"
    config = small(prediction=prediction, steps=40, validate_every=20, rollout_steps=5, images=images, lr=1e-2)
    config.model.name, config.model.options["hidden_channels"] = name, width
    run = train(config, tmp_path / "runs" / "one")
    surrogate = Surrogate.from_pretrained(run / "surrogate")
    values, drawn = scalars(run)
    losses = values["valid/loss"]
    last = losses[max(losses)]
    assert surrogate.metrics["valid/loss"] == pytest.approx(last)
    assert last < 0.9 * losses[min(losses)]
    if prediction == "delta":
        assert last < 0.9  # persistence has 1
    assert (surrogate.spec.fields[0].name, surrogate.prediction, surrogate.history) == ("density", prediction, 2)
    assert surrogate.training_config == config.to_dict()
    assert len(values["train/loss"]) == 40
    assert {"train/learning_rate", "train/gradient_norm", "valid/nrmse", "valid/nrmse_velocity"} <= set(values)
    assert {"gradients/stem", "gradients/blocks.0", "gradients/head"} <= set(values)
    assert {"speed/steps_per_second", "speed/windows_per_second", "memory/peak_gib"} <= set(values)
    assert drawn == ({"valid/frames", "valid/rollout", "valid/spectra", "valid/animation"} if images else set())
    symmetric = name == "csresnet"
    assert all((error < 1e-4) == symmetric for error in values["valid/equivariance_error"].values())
    assert len(values["valid/rollout_nrmse_5_steps"]) == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_everything_is_written_at_the_number_of_steps_done(small, tmp_path):
    seldom, often = (
        scalars(train(small(steps=6, validate_every=3, log_every=every, rollout_steps=2), tmp_path / str(every)))[0]
        for every in (3, 1)
    )
    assert {tag: sorted(steps) for tag, steps in seldom.items()} == {tag: [3, 6] for tag in seldom}
    assert sorted(often["train/loss"]) == [1, 2, 3, 4, 5, 6]
    for tag in ("train/loss", "train/mse_velocity", "train/gradient_norm", "train/learning_rate", "gradients/head"):
        assert seldom[tag] == {step: often[tag][step] for step in (3, 6)}


def test_the_same_seed_gives_the_same_weights_and_another_one_others(small, tmp_path, unbroken):
    assert same(weights(train(small(), tmp_path / "a")), unbroken(small()))
    assert not same(weights(train(small(seed=1), tmp_path / "b")), unbroken(small()))


def test_training_leaves_the_global_random_state_alone(small, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train(small(steps=1), tmp_path / "a")
    assert torch.equal(torch.rand(1), expected)


def test_the_surrogate_is_the_running_average(small, tmp_path):
    run = train(small(), tmp_path / "run")
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    final = weights(run)
    assert all(torch.equal(value, state[f"average.{name}"]) for name, value in final.items())
    assert not all(torch.equal(value, state[f"surrogate.{name}"]) for name, value in final.items())


def test_gradient_clipping_bounds_a_step_of_sgd(small, tmp_path):
    options = {"steps": 1, "ema_decay": 0.0, "gradient_clip": 0.01, "lr": 1.0, "betas": (0.0, 0.0), "warmup_steps": 0}
    config = small(**options, weight_decay=0.0)
    config.optimizer.name = "sgd"
    after = weights(train(config, tmp_path / "a"))
    config.optimizer.lr = 1e-30
    before = weights(train(config, tmp_path / "b"))
    moved = sum(float((after[name] - before[name]).double().square().sum()) for name in after) ** 0.5
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_accumulated_batches_give_the_losses_of_one(small, tmp_path):
    runs = [train(small(accumulate=n, steps=6, augment="rotations"), tmp_path / str(n)) for n in (1, 2, 4)]
    whole, *parts = [scalars(run)[0]["train/loss"] for run in runs]
    for part in parts:
        assert part == pytest.approx(whole, rel=1e-5)
    for run in runs[1:]:
        torch.testing.assert_close(weights(run), weights(runs[0]), atol=1e-6, rtol=1e-4)


def test_turned_windows_change_the_training_of_a_network_without_symmetry_only(small, tmp_path):
    losses = {}
    for model in ("resnet", "csresnet"):
        for augment in ("none", "rotations"):
            config = small(steps=1, augment=augment, validate_every=1)
            config.model.name = model
            losses[model, augment] = scalars(train(config, tmp_path / model / augment))[0]["train/loss"][1]
    assert losses["resnet", "rotations"] != pytest.approx(losses["resnet", "none"], rel=1e-4)
    assert losses["csresnet", "rotations"] == pytest.approx(losses["csresnet", "none"], rel=1e-4)


def test_checkpointed_blocks_train_alike(small, tmp_path, unbroken):
    torch.testing.assert_close(weights(train(small(checkpoint_blocks=True), tmp_path / "a")), unbroken(small()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of a module that PyTorch's own compiler imports
def test_a_compiled_network_trains_alike(small, tmp_path, unbroken):
    torch.testing.assert_close(weights(train(small(compile="default"), tmp_path / "a")), unbroken(small()))


def test_the_output_of_each_loss_is_told_by_field(small, tmp_path):
    config = small(steps=3)
    config.loss.energy = config.loss.divergence = 0.1
    values, _ = scalars(train(config, tmp_path / "a"))
    assert {"train/mse_density", "train/mse_velocity", "train/energy", "train/divergence"} <= set(values)


def test_double_precision(small, tmp_path):
    run = train(small(precision="64-true", rollout_steps=2), tmp_path / "a")
    surrogate = Surrogate.from_pretrained(run / "surrogate")
    assert surrogate.dtype == torch.float64


def test_bfloat16(small, tmp_path):
    surrogate = Surrogate.from_pretrained(train(small(precision="bf16-mixed"), tmp_path / "a") / "surrogate")
    assert surrogate.dtype == torch.float32


def test_several_frames_at_once(small, tmp_path):
    surrogate = Surrogate.from_pretrained(train(small(future=2, rollout_steps=3), tmp_path / "a") / "surrogate")
    assert surrogate.future == 2


@pytest.mark.slow
def test_workers_change_nothing(small, tmp_path, unbroken):
    assert same(weights(train(small(workers=2), tmp_path / "a")), unbroken(small()))


def test_a_terminal_gets_a_bar_and_an_interrupt_takes_it_away(small, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    train(small(), tmp_path / "run")
    shown = capfd.readouterr().err
    assert "8/8" in shown
    assert "loss" in shown
    assert "valid" in shown
    assert shown.endswith("\x1b[2K")  # the line is wiped
    with pytest.raises(DivergenceError):
        train(small(lr=1e30, gradient_clip=0.0, warmup_steps=0, steps=30), tmp_path / "other")
    shown = capfd.readouterr().err
    assert "/30" in shown
    assert shown.endswith("\x1b[2K")


def test_a_width_is_matched_and_kept_with_the_surrogate(small, tmp_path):
    config = small(trajectories=2, steps=2)
    like = {"name": "resnet", "options": {"hidden_channels": 9, "blocks": [1], "kernel_size": 3, "padding": "grid"}}
    config.model = ModelConfig("resnet", config.model.options | {"padding": "grid"}, "params", like)
    train(config, tmp_path / "run")
    surrogate = Surrogate.from_pretrained(tmp_path / "run" / "surrogate")
    assert surrogate.model["hidden_channels"] == 9
    assert surrogate.training_config["model"]["options"]["hidden_channels"] == 6
    assert surrogate.training_config["data"]["trajectories"] == 2


def test_importing_the_package_needs_no_lightning():
    code = "import sys, cliffsteer.training; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
