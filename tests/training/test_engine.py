import json
import logging
import re
import signal
import subprocess
import sys

import pytest
import torch

from cliffsteer import Surrogate
from cliffsteer.datasets import Recipe, generate
from cliffsteer.training import ModelConfig, train
from cliffsteer.training.guard import DivergenceError


def weights(run):
    return Surrogate.from_pretrained(run / "surrogate").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scalars(run):
    """What TensorBoard has: tag -> {step: value}, and the tags of images."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    values, images = {}, set()
    for path in sorted((run / "tensorboard").glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    images.add(value.tag)
                else:
                    values.setdefault(value.tag, {})[event.step] = float(value.tensor.float_val[0])
    return values, images


class At(logging.Handler):
    """Does something when training tells that a step is validated."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def emit(self, record):
        if record.getMessage().startswith(f"step {self.step} "):
            self.action()

    def __enter__(self):
        self.logger = logging.getLogger("cliffsteer.training")
        self.level = self.logger.level
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)

    def __exit__(self, *_):
        self.logger.removeHandler(self)
        self.logger.setLevel(self.level)


@pytest.fixture(scope="module")
def unbroken(root, tmp_path_factory):
    """The weights of a run of `small` that nothing interrupts."""
    runs = {}

    def get(config):
        key = json.dumps(config.to_dict())
        if key not in runs:
            runs[key] = weights(train(config, tmp_path_factory.mktemp("unbroken") / "run"))
        return runs[key]

    return get


# --------------------------------------------------------------------------------------------------- training


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
    assert all(0 <= share < 1 for share in values["speed/waiting_share"].values())
    assert drawn == ({"valid/frames", "valid/rollout", "valid/spectra", "valid/animation"} if images else set())
    symmetric = name == "csresnet"
    assert all((error < 1e-4) == symmetric for error in values["valid/equivariance_error"].values())
    assert len(values["valid/rollout_nrmse_5_steps"]) == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


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
            losses[model, augment] = scalars(train(config, tmp_path / model / augment))[0]["train/loss"][0]
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


# ----------------------------------------------------------------------------------------------------- resume


CHILD = """
import json, logging, os, signal, sys
import torch
from cliffsteer.training import train
torch.set_num_threads(1)

class Kill(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("step 4 "):
            os.kill(os.getpid(), signal.SIGKILL)

logging.getLogger("cliffsteer").addHandler(Kill())
logging.getLogger("cliffsteer").setLevel(logging.INFO)
train(json.loads(sys.argv[1]), sys.argv[2])
"""


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(small, tmp_path, unbroken):
    config, run = small(), tmp_path / "run"
    arguments = [sys.executable, "-c", CHILD, json.dumps(config.to_dict()), str(run)]
    child = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert not (run / "surrogate").exists()
    assert same(weights(train(config, run)), unbroken(config))
    values, _ = scalars(run)
    assert sorted(values["train/loss"]) == list(range(8))
    assert len(values["valid/loss"]) == 2


def everything(small):
    """All that has a state or depends on the step."""
    config = small(steps=9, accumulate=2, precision="bf16-mixed", checkpoint_blocks=True, future=2)
    config.loss.name, config.loss.unroll, config.loss.curriculum, config.loss.detach = "unrolled", 3, 6, 2
    config.data.augment = "rotations"
    config.loss.sobolev, config.loss.spectral, config.loss.units = 0.1, 0.01, "physical"
    return config


def test_losses_after_an_interrupt_are_those_of_an_unbroken_run(small, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    config = everything(small)
    whole, run = train(config, tmp_path / "whole"), tmp_path / "run"
    with At(4, interrupt), pytest.raises(KeyboardInterrupt):
        train(config, run)
    values = scalars(train(config, run))[0]
    expected = scalars(whole)[0]
    for name in ("train/loss", "train/mse_density", "train/spectral", "train/gradient_norm", "valid/loss"):
        assert values[name] == expected[name]
    assert same(weights(run), weights(whole))
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run, whole)]
    assert states[0]["guard"] == states[1]["guard"]


def test_an_interrupt_is_passed_on_and_training_goes_on_later(small, tmp_path, unbroken):
    def interrupt():
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with At(4, interrupt), pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler
    assert same(weights(train(small(), tmp_path / "run")), unbroken(small()))


def test_a_longer_training_goes_on_from_between_two_validations(small, tmp_path, unbroken):
    schedule = {"warmup_steps": 2, "checkpoint_every": 0}
    short, long = small(steps=6, **schedule), small(steps=10, **schedule)
    short.schedule.name = long.schedule.name = "constant"
    run = train(short, tmp_path / "run")
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert same(weights(train(long, run)), unbroken(long))


def test_a_training_killed_before_its_surrogate_was_written_only_writes_it(small, tmp_path, unbroken):
    import shutil

    run = train(small(), tmp_path / "run")
    metrics = Surrogate.from_pretrained(run / "surrogate").metrics
    shutil.rmtree(run / "surrogate")
    assert same(weights(train(small(), run)), unbroken(small()))
    assert Surrogate.from_pretrained(run / "surrogate").metrics == pytest.approx(metrics)


def test_a_finished_run_is_left_as_it_is(small, tmp_path, caplog):
    run = train(small(), tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, "cliffsteer"):
        assert train(small(progress=False), run) == run
    assert "trained already (8 steps)" in caplog.text
    assert times == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------ errors


def test_another_run_in_the_folder_is_not_continued(small, tmp_path):
    run = train(small(steps=1), tmp_path / "run")
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run with `optimizer.lr` 0.005, this one has 0.5"):
        train(small(lr=0.5), run)
    with pytest.raises(ValueError, match=r"holds a run with `prediction` delta, this one has state"):
        train(small(prediction="state"), run)
    with pytest.raises(ValueError, match=r"`out` \(=.*\) holds a run already"):
        train(small(steps=1), run, resume=False)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_data_of_another_system_are_not_trained_on_further(small, tmp_path):
    run = train(small(steps=1), tmp_path / "run")
    recipe = Recipe("smoke", {"resolution": 16, "dt": 1.5}, {"train": 1, "valid": 1}, frames=9)
    other = generate(recipe, tmp_path / "data", progress=False)
    with pytest.raises(ValueError, match=r"`data.root` \(=.*\) holds other fields, another grid or time step"):
        train(small(root=str(other)), run)


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_damaged_checkpoint(small, tmp_path, keep):
    run = train(small(steps=1), tmp_path / "run")
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"last.ckpt` is damaged or no checkpoint"):
        train(small(), run)


def edit(last, change):
    checkpoint = torch.load(last, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, last)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=99), r"last.ckpt` has format version 99, this cliffsteer goes on from"),
        (lambda c: c.pop("format_version"), r"last.ckpt` has format version None"),
        (lambda c: c["state_dict"].popitem(), r"last.ckpt` does not fit the network: 1 weight"),
        (
            lambda c: c["state_dict"].update({k: v[..., None] for k, v in list(c["state_dict"].items())[:2]}),
            r"last.ckpt` does not fit the network: 2 weight",
        ),
        (lambda c: c.pop("optimizer_states"), r"last.ckpt` is damaged or no checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_taken_up(small, tmp_path, change, message):
    run = train(small(steps=1), tmp_path / "run")
    edit(run / "checkpoints" / "last.ckpt", change)
    with pytest.raises(ValueError, match=message):
        train(small(), run)


def test_a_network_that_does_not_fit_the_grid_is_refused_before_it_trains(small, tmp_path):
    config = small()
    config.model.name, config.model.options["kernel_size"] = "csresnet", 33
    with pytest.raises(ValueError, match=r"`model` does not fit the data: the grid \(16, 16\) is smaller"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_training_stops_and_keeps_the_last_good_checkpoint(small, tmp_path):
    config = small(lr=1e20, gradient_clip=0.0, checkpoint_every=1, warmup_steps=0, steps=50, validate_every=50)
    config.optimizer.name = "sgd"
    with pytest.raises(
        DivergenceError, match=r"Training diverged: the .* is not a number at step \d+; try .* keeps the last good"
    ):
        train(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert not (tmp_path / "run" / "surrogate").exists()


def test_a_training_whose_loss_stays_high_stops_with_the_checkpoint_of_before(small, tmp_path):
    config = small(lr=5.0, warmup_steps=400, steps=400, validate_every=100, checkpoint_every=10)
    config.trainer.divergence_factor, config.trainer.divergence_steps = 3.0, 15
    run = tmp_path / "run"
    with pytest.raises(DivergenceError) as caught:
        train(config, run)
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    step, text = checkpoint["global_step"], str(caught.value)
    assert re.search(r"the loss \(=.*\) has been more than 3 times its best \(.*\) for 15 steps at step \d+; try", text)
    assert text.endswith(
        f"{last} keeps the last good weights, of step {step}: start from them with `model.weights={last}`."
    )
    assert int(re.search(r"at step (\d+)", text)[1]) > step + 15
    assert checkpoint["guard"]["high"] == 0
    best = checkpoint["guard"]["best"]
    calmer = small(lr=1e-3, steps=4)
    calmer.model.weights = str(last)
    assert max(scalars(train(calmer, tmp_path / "calmer"))[0]["train/loss"].values()) < 5 * best


def test_a_full_disk_keeps_the_last_checkpoint_and_training_goes_on_later(small, tmp_path, unbroken):
    import resource

    run = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        size = (run / "checkpoints" / "last.ckpt").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, limits[1]))

    try:
        with At(4, fill), pytest.raises(OSError, match="too large"):
            train(small(), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert same(weights(train(small(), run)), unbroken(small()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": 9}, r"`history` \(=9\) and `future` \(=1\) need 10 frames"),
        (
            {"loss": {"name": "unrolled", "unroll": 8}},
            r"`loss.unroll` \(=8\) needs windows of .* = 10 frames, but .* 9",
        ),
        ({"model": {"name": "csresnet", "options": {"width": 3}}}, "has no option 'width'"),
        ({"model": {"name": "csresnett", "options": {}}}, "did you mean 'csresnet'"),
    ],
)
def test_refusals(small, tmp_path, change, message):
    config = small().to_dict()
    (config["data"] if "history" in change else config).update(change)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")


def test_no_dataset(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(small(root=str(tmp_path / "nowhere")), tmp_path / "run")


def test_a_dataset_without_validation_split(small, tmp_path):
    recipe = Recipe("smoke", {"resolution": 16, "dt": 3.0}, {"train": 1}, frames=4)
    root = generate(recipe, tmp_path / "data", progress=False)
    with pytest.raises(ValueError, match=r"`split` \(='valid'\) is not in"):
        train(small(root=str(root)), tmp_path / "run")


def test_importing_the_package_needs_no_lightning():
    code = "import sys, cliffsteer.training; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_width_is_matched_and_kept_with_the_surrogate(small, tmp_path):
    config = small(trajectories=2, steps=2)
    like = {"name": "resnet", "options": {"hidden_channels": 9, "blocks": [1], "kernel_size": 3, "padding": "grid"}}
    config.model = ModelConfig("resnet", config.model.options | {"padding": "grid"}, "params", like)
    train(config, tmp_path / "run")
    surrogate = Surrogate.from_pretrained(tmp_path / "run" / "surrogate")
    assert surrogate.model["hidden_channels"] == 9
    assert surrogate.training_config["model"]["options"]["hidden_channels"] == 6
    assert surrogate.training_config["data"]["trajectories"] == 2
