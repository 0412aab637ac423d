"""A folder in which data were generated and two tiny networks trained and evaluated, by the command line."""

import contextlib
import shutil
from pathlib import Path

import pytest

from cliffsteer.cli import main

GENERATE = ["generate", "solver.resolution=12", "n=4", "frames=8", "card=false", "progress=false"]
TRAIN = [
    *("train", "experiment=smoke", "trainer.steps=4", "trainer.validate_every=4", "trainer.checkpoint_every=0"),
    *("trainer.progress=false", "trainer.rollout_steps=0", "trainer.images=false", "data.batch_size=4"),
    *("schedule.warmup_steps=1", "model.options.hidden_channels=2", "model.options.blocks=[1]"),
    "model.options.kernel_size=3",
]


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory) -> Path:
    """Dataset data/smoke, runs/csresnet-0 and runs/csresnet-1, which differ in their seed."""
    folder = tmp_path_factory.mktemp("evaluated")
    with contextlib.chdir(folder):
        assert main(GENERATE) == 0
        for seed in (0, 1):
            run = f"runs/csresnet-{seed}"
            assert main([*TRAIN, f"trainer.seed={seed}", f"out={run}"]) == 0
            assert main(["evaluate", f"run={run}", "steps=3", f"report={'true' if seed else 'false'}"]) == 0
    return folder


@pytest.fixture
def here(evaluated, tmp_path, monkeypatch) -> Path:
    """A copy of it, and the current folder."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
