"""Guard: notices a training that diverges, while there is still a good checkpoint."""

from __future__ import annotations

import math
from typing import Any

from cliffsteer.training.config import TrainConfig

MEMORY = 20
"""Steps over which the loss is averaged."""


class DivergenceError(ValueError):
    """Training reached a loss or a gradient that is not a number, or a loss far above its best that stays there."""


class Guard:
    """Watches the loss of every optimiser step.

    With m the running mean of the loss over `MEMORY` steps, m ← m + (loss − m) / min(n, MEMORY), and m* the smallest
    of them so far, the loss is too high where m > factor · m*. Too high for ``steps`` optimiser steps in a row, the
    training has diverged. When the task changes, as the unrolling grows, m and m* start anew.

    Args:
        config: the run; ``trainer.divergence_factor`` and ``trainer.divergence_steps`` are used, other options for
            advice.

    Attributes:
        too_high: whether the loss is too high now; checkpoints of such weights would not be good ones.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self._start(None)

    @property
    def too_high(self) -> bool:
        """Whether the loss is too high now."""
        return self._high > 0

    def check_loss(self, loss: float, step: int, task: int = 1) -> None:
        """Take in the loss of an optimiser step.

        Args:
            loss: its value.
            step: optimiser steps before it.
            task: what the loss is of; the number of calls of the network.

        Raises:
            DivergenceError: the loss is not a number, or has been too high for too long.
        """
        if not math.isfinite(loss):
            self.stop("the loss is not a number", step)
        if task != self._task:
            self._start(task)
        self._count += 1
        self._mean += (loss - self._mean) / min(self._count, MEMORY)
        if self._count >= MEMORY:
            self._best = min(self._best, self._mean)
        trainer = self.config.trainer
        is_high = bool(trainer.divergence_factor) and self._mean > trainer.divergence_factor * self._best
        self._high = self._high + 1 if is_high else 0
        if self._high >= trainer.divergence_steps:
            self.stop(
                f"the loss (={self._mean:.3g}) has been more than {trainer.divergence_factor:g} times its best"
                f" ({self._best:.3g}) for {trainer.divergence_steps} steps",
                step,
            )

    def stop(self, what: str, step: int) -> None:
        """Raise a DivergenceError that says what happened in the step after ``step``, and what to try."""
        raise DivergenceError(f"Training diverged: {what} at step {step + 1}; try {', '.join(advice(self.config))}.")

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, in plain numbers."""
        return {"task": self._task, "count": self._count, "mean": self._mean, "best": self._best, "high": self._high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what it had seen."""
        self._task, self._count, self._mean = state["task"], state["count"], state["mean"]
        self._best, self._high = state["best"], state["high"]

    def _start(self, task: int | None) -> None:
        self._task, self._count, self._mean, self._best, self._high = task, 0, 0.0, math.inf, 0


def advice(config: TrainConfig) -> list[str]:
    """What to try when a training of this config diverges, the likeliest first; phrases."""
    tips = ["a smaller `optimizer.lr`"]
    if config.trainer.gradient_clip:
        tips.append("a smaller `trainer.gradient_clip`")
    else:
        tips.append("`trainer.gradient_clip=1`")
    if config.loss.unroll > 1:
        tips.append("a longer `loss.curriculum`")
    elif config.schedule.warmup_steps < 0.05 * config.trainer.steps:
        tips.append("a longer `schedule.warmup_steps`")
    if config.trainer.precision.endswith("mixed"):
        tips.append("`precision=float32`")
    return [*tips[:-1], f"or {tips[-1]}", "and check the data with `cliffsteer verify`"]
