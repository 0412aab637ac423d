"""Training: ``train(config, out)`` and the config's dataclasses. Importing this package does not import Lightning."""

from __future__ import annotations

from typing import Any

from cliffsteer.training.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainerConfig,
)

__all__ = [
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "TrainerConfig",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        from cliffsteer.training.engine import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
