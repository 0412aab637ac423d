"""Sweeps through launchers of Hydra that pickle the task and call it elsewhere, as on a SLURM cluster."""

import contextlib
import pickle

from hydra import compose, initialize_config_module

from cliffsteer import Surrogate
from cliffsteer.cli import _Task
from cliffsteer.commands.schema import register


def test_a_task_runs_in_another_process_too(root, tmp_path):
    options = ["hidden_channels=3", "blocks=[1]", "kernel_size=3"]
    keys = ["steps=2", "validate_every=2", "rollout_steps=0", "images=false", "progress=false"]
    overrides = [
        *("model=resnet", f"data.root={root}", "data.history=1", "data.batch_size=2", f"out={tmp_path / 'run'}"),
        *(f"model.options.{option}" for option in options),
        *(f"trainer.{key}" for key in keys),
    ]
    with contextlib.ExitStack() as start:
        start.enter_context(initialize_config_module("cliffsteer.conf", version_base="1.3"))  # holds what has no pickle
        register()
        sent = pickle.loads(pickle.dumps(_Task("train", start)))
        sent(compose("train", overrides))
    assert Surrogate.from_pretrained(tmp_path / "run" / "surrogate").training_config["trainer"]["steps"] == 2
