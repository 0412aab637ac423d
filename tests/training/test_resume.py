"""A training that was stopped, killed or interrupted goes on, and ends as one that was not."""

import json
import logging
import signal
import subprocess
import sys

import pytest
import torch
from training_runs import At, same, scalars, weights

from cliffsteer import Surrogate
from cliffsteer.training import train

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
    assert sorted(values["train/loss"]) == list(range(1, 9))
    assert sorted(values["valid/loss"]) == [4, 8]


def test_the_best_checkpoint_is_that_of_the_smallest_validation_loss(small, tmp_path):
    config, run = small(steps=3), tmp_path / "run"
    config.trainer.validate_every = 100  # the last step alone
    last, best = (run / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))

    def loss_of(path):
        return next(state for name, state in torch.load(path)["callbacks"].items() if "Checkpoints" in name)["best"]

    train(config, run)
    first = scalars(run)[0]["valid/loss"][3]
    assert loss_of(last) == loss_of(best) == pytest.approx(first)
    config.trainer.steps = 6
    checkpoint = torch.load(last)
    next(state for name, state in checkpoint["callbacks"].items() if "Checkpoints" in name)["best"] = first / 100
    torch.save(checkpoint, last)
    train(config, run)
    assert torch.load(last)["global_step"] == 6
    assert torch.load(best)["global_step"] == 3


def everything(small):
    """All that has a state or depends on the step."""
    config = small(steps=9, accumulate=2, precision="bf16-mixed", checkpoint_blocks=True, future=2)
    config.loss.name, config.loss.unroll, config.loss.curriculum, config.loss.detach = "unrolled", 3, 6, 2
    config.data.augment = "rotations"
    config.data.noise = 0.1
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


def test_an_option_that_was_left_out_and_has_another_default_by_now_is_told(small, tmp_path):
    config = small(steps=2)
    config.model.name, config.model.options = "csresnet", {"hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    last = train(config, tmp_path / "run") / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["model"]["norm"] == "group"
    config.trainer.steps = 4
    torch.save(checkpoint | {"model": checkpoint["model"] | {"norm": "layer"}}, last)
    for name, other in {"norm": "layer", "padding": "mirror"}.items():
        now = checkpoint["model"][name]
        torch.save(checkpoint | {"model": checkpoint["model"] | {name: other}}, last)
        message = rf"holds a run with `model\.options\.{name}` {other}, this one has {now}: .* the same value"
        with pytest.raises(ValueError, match=message):
            train(config, tmp_path / "run")
    config.model.options["padding"] = "mirror"  # the last sentence's way out
    train(config, tmp_path / "run")
    assert torch.load(last, weights_only=True)["global_step"] == 4
    del checkpoint["model"]  # of before it was kept
    torch.save(checkpoint, last)
    config.model.options.pop("padding")
    train(config, tmp_path / "run")
    assert torch.load(last, weights_only=True)["global_step"] == 4


def test_a_finished_run_is_left_as_it_is(small, tmp_path, caplog):
    run = train(small(), tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, "cliffsteer"):
        assert train(small(progress=False), run) == run
    assert "trained already (8 steps)" in caplog.text
    assert times == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


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
