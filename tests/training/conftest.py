"""A small smoke dataset, simulated once, and a training run that takes a second on it."""

import json
from pathlib import Path

import pytest
from training_runs import weights

from cliffsteer.datasets import Recipe, generate
from cliffsteer.training import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainerConfig,
    train,
)


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    recipe = Recipe("smoke", {"resolution": 16, "dt": 3.0}, {"train": 3, "valid": 2}, frames=9, batch=2)
    return generate(recipe, tmp_path_factory.mktemp("data") / "smoke", progress=False)


@pytest.fixture
def small(root):
    """Make a config; keyword arguments go to the part that knows them."""

    def make(**changes) -> TrainConfig:
        config = TrainConfig(
            DataConfig(str(root), history=2, batch_size=4),
            ModelConfig("resnet", {"hidden_channels": 6, "blocks": [1], "kernel_size": 3}),
            optimizer=OptimizerConfig(lr=5e-3),
            schedule=ScheduleConfig(warmup_steps=2),
            trainer=TrainerConfig(steps=8, validate_every=4, checkpoint_every=3, log_every=1, ema_decay=0.9),
        )
        config.trainer.rollout_steps, config.trainer.images = 0, False
        for name, value in changes.items():
            parts = (config, config.data, config.optimizer, config.schedule, config.trainer)
            setattr(next(part for part in parts if hasattr(part, name)), name, value)
        return config

    return make


@pytest.fixture(scope="session")
def unbroken(root, tmp_path_factory):
    """The weights of a run of `small` that nothing interrupts."""
    runs = {}

    def get(config):
        key = json.dumps(config.to_dict())
        if key not in runs:
            runs[key] = weights(train(config, tmp_path_factory.mktemp("unbroken") / "run"))
        return runs[key]

    return get
