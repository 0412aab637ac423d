"""Two processes under torchrun train like one, and go on where they stopped."""

import json
import subprocess
import sys

import pytest
import torch

from cliffsteer import Surrogate
from cliffsteer.training import TrainerConfig, train
from cliffsteer.training.parallel import Sharded, create_strategy, total_norm

TWO = """
import json, sys
import torch
from cliffsteer.training import train
torch.set_num_threads(1)
train(json.loads(sys.argv[1]), sys.argv[2])
"""


def losses(run):
    """The training loss of each step, as TensorBoard has it."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for path in sorted((run / "tensorboard").glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == "train/loss":
                    found[event.step] = float(value.tensor.float_val[0])
    return [found[step] for step in sorted(found)]


def torchrun(config, run, script):
    script.write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, json.dumps(config.to_dict()), str(run)], capture_output=True, text=True, check=False, timeout=300
    )
    return done


def make(small, **changes):
    config = small(accelerator="cpu", rollout_steps=3, **changes)
    config.schedule.name = "constant"
    # the implicit kernel has a weight without an axis
    config.model.name = "csresnet"
    config.model.options = {"hidden_channels": 3, "blocks": [1], "kernel_size": 3, "kernel": "implicit"}
    config.data.augment = "rotations"
    config.data.noise = 0.1
    config.projections = ["positive:density"]
    config.loss.name, config.loss.unroll = "pushforward", 2
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "processes"), [("ddp", (2, 2)), ("fsdp", (2, 2)), ("fsdp", (2, 1)), ("fsdp", (1, 2))]
)
def test_two_processes_give_the_losses_of_one(small, tmp_path, strategy, processes):
    run = tmp_path / "run"
    for steps, devices in zip((5, 8), processes, strict=True):
        config = make(small, devices=devices, steps=steps, strategy=strategy, accumulate=2)
        if devices == 1:
            train(config, run)
        else:
            done = torchrun(config, run, tmp_path / "two.py")
            assert done.returncode == 0, done.stderr
    one = train(make(small, steps=8, accumulate=2), tmp_path / "one")
    assert losses(run) == pytest.approx(losses(one), rel=1e-4)
    surrogates = [Surrogate.from_pretrained(folder / "surrogate") for folder in (run, one)]
    assert surrogates[0].metrics == pytest.approx(surrogates[1].metrics, rel=1e-3)
    torch.testing.assert_close(surrogates[0].state_dict(), surrogates[1].state_dict(), atol=1e-5, rtol=1e-3)
    assert surrogates[0].projection_names == surrogates[1].projection_names


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_stop_together_when_they_diverge(small, tmp_path, strategy):
    config = small(
        devices=2, accelerator="cpu", strategy=strategy, lr=1e20, gradient_clip=0.0, warmup_steps=0, steps=50
    )
    config.optimizer.name, config.trainer.checkpoint_every = "sgd", 1
    done = torchrun(config, tmp_path / "run", tmp_path / "two.py")
    assert done.returncode != 0
    assert "is not a number at step" in done.stderr
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_several_devices_need_a_launcher(small, tmp_path, monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ValueError, match=r"`trainer.devices` \(=2\) .* need 2 processes: .* `torchrun --nproc-per-node 2`"
    ):
        train(small(devices=2, accelerator="cpu"), tmp_path / "run")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert create_strategy(TrainerConfig(devices=2)) == create_strategy(TrainerConfig(nodes=2)) == "ddp"
    assert isinstance(create_strategy(TrainerConfig(devices=2, nodes=2, strategy="fsdp")), Sharded)
    assert create_strategy(TrainerConfig(strategy="fsdp")) == "auto"


@pytest.mark.parametrize(
    ("environment", "settings", "message"),
    [
        ({"WORLD_SIZE": "2"}, {}, r"`trainer.devices` \(=1\) × .* torchrun started \(=2\): give `trainer.devices=2`,"),
        ({"WORLD_SIZE": "4"}, {"devices": 2}, r"`trainer.devices` \(=2\) .* \(=4\): give `trainer.devices=4`,"),
        (
            {"WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2"},
            {"devices": 4},
            r"\(=8\): give `trainer.devices=4` and `trainer.nodes=2`",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"},
            {},
            r"srun started \(=8\): give `trainer.devices=4` and `trainer.nodes=2`",
        ),
    ],
)
def test_as_many_processes_as_devices(monkeypatch, environment, settings, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        create_strategy(TrainerConfig(**settings))


def test_one_process_in_a_larger_allocation(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of the script, which srun did not start
    assert create_strategy(TrainerConfig()) == "auto"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("WORLD_SIZE", "1")  # of torchrun, in a task of srun
    assert create_strategy(TrainerConfig()) == "auto"


def test_total_norm():
    assert total_norm([torch.tensor([3.0]), torch.tensor(4.0)]).item() == pytest.approx(5.0)
