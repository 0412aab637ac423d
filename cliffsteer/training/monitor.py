"""Monitor: how fast a training is, what it waits for, and how much memory it takes, in TensorBoard."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from cliffsteer.training.module import SurrogateModule


class Monitor(Callback):
    """Logs, every few steps, means over the steps since the last time; validation does not count.

    `speed/steps_per_second` and `speed/windows_per_second`; `speed/waiting_share`, the part of the time between the end
    of a batch and the start of the next, in which data are read; `memory/peak_gib`, the largest memory allocated on a
    CUDA device so far, or without one the largest resident memory of the process. Beside them
    `speed/training_seconds`, the time of all steps up to here: a training that goes on from a checkpoint goes on from
    the time that it had taken until then.

    Args:
        batch_size: windows of an optimiser step, over all processes.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self._spent = self._waited = self._seconds = 0.0
        self._steps, self._first = 0, True
        self._started: float | None = None  # of the batch that is computed now
        self._ended: float | None = None  # of the one before it

    def state_dict(self) -> dict[str, Any]:
        """The time of all steps so far, the one at whose end a checkpoint is written included."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return {"seconds": self._seconds + running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the time that the training had taken."""
        self._seconds = state_dict["seconds"]

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note how long the batch was waited for."""
        now = time.perf_counter()
        if self._ended is not None:
            self._waited += now - self._ended
            self._spent += now - self._ended
            self._seconds += now - self._ended
        self._started = now

    def on_train_batch_end(
        self, trainer: Trainer, module: SurrogateModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log every few steps."""
        self._ended = time.perf_counter()
        spent, self._started = self._ended - self._started, None
        self._seconds += spent
        if self._first:  # the first batch starts threads, chooses algorithms and compiles
            self._first = False
            return
        self._spent += spent
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps or not trainer.is_global_zero:
            return
        speed = self._steps / self._spent
        values = {
            "speed/steps_per_second": speed,
            "speed/windows_per_second": speed * self.batch_size,
            "speed/waiting_share": self._waited / self._spent,
            "memory/peak_gib": _peak_memory(module.device),
        }
        for name, value in values.items():
            if value is not None:
                trainer.logger.experiment.add_scalar(name, value, trainer.global_step)
        self._write_seconds(trainer)
        self._spent = self._waited = 0.0
        self._steps = 0

    def on_validation_start(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Stop the clock."""
        self._ended = None

    def on_train_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Tell the time of the whole training."""
        if trainer.global_step % trainer.log_every_n_steps:
            self._write_seconds(trainer)

    def _write_seconds(self, trainer: Trainer) -> None:
        trainer.logger.experiment.add_scalar("speed/training_seconds", self._seconds, trainer.global_step)


def _peak_memory(device: torch.device) -> float | None:
    """GiB, None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
