"""What happens beside the optimisation: checkpoints and the progress bar."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from cliffsteer.storage import replacing_file
from cliffsteer.training.module import SurrogateModule

logger = logging.getLogger(__name__)


class Checkpoints(Callback):
    """Write `last.ckpt` at every validation and every few steps, and `best.ckpt` by the validation loss.

    A checkpoint takes the place of the one before only when it is complete, and, before the last step, only while the
    loss is not too high, so that `last.ckpt` holds good weights when a training diverges.

    Args:
        folder: where to.
        every: steps between writes besides those at validation; 0 for none.
        validate_every: steps between validations.
    """

    def __init__(self, folder: Path, every: int, validate_every: int):
        self.folder, self.every, self.validate_every = folder, every, validate_every
        self.best = float("inf")

    def state_dict(self) -> dict[str, Any]:
        """The best validation loss so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best validation loss so far."""
        self.best = state_dict["best"]

    def on_train_batch_end(
        self, trainer: Trainer, module: SurrogateModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write every few steps and at the last one, unless the validation that follows will."""
        step = trainer.global_step
        due = step == trainer.max_steps or (self.every and step % self.every == 0)
        if due and step % self.validate_every and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._write(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Write, and keep a copy when the validation loss is the smallest so far."""
        loss = float(trainer.callback_metrics["valid/loss"])
        better = loss < self.best
        self.best = min(self.best, loss)
        if trainer.state.fn == "fit":
            written = self._write(trainer, module)
        else:  # after the last step, which has written
            written = True
            if better and trainer.is_global_zero:
                self._amend()
        if better and written and trainer.is_global_zero:
            with replacing_file(self.folder / "best.ckpt") as path:
                shutil.copyfile(self.folder / "last.ckpt", path)

    def _write(self, trainer: Trainer, module: SurrogateModule) -> bool:
        """Write `last.ckpt`, or return False when the weights are not good."""
        if module.guard.too_high and trainer.global_step < trainer.max_steps:
            return False
        target = self.folder / "last.ckpt"
        with replacing_file(target) if trainer.is_global_zero else contextlib.nullcontext(target) as path:
            trainer.save_checkpoint(path)
        return True

    def _amend(self) -> None:
        """Tell `last.ckpt` the best loss, which was measured after it was written."""
        checkpoint = torch.load(self.folder / "last.ckpt", map_location="cpu", weights_only=True)
        checkpoint["callbacks"][self.state_key] = self.state_dict()
        with replacing_file(self.folder / "last.ckpt") as path:
            torch.save(checkpoint, path)


class ProgressBar(Callback):
    """A bar with the time left and the losses; on anything but a terminal a line of the log at each validation."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._losses = {"loss": "", "valid": ""}

    def on_train_start(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Show the bar."""
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        if not (trainer.is_global_zero and console.is_terminal):
            return
        columns = (
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("steps"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[loss]} {task.fields[valid]}"),
        )
        self._bar = progress.Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, **self._losses)
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, module: SurrogateModule, outputs: Any, *_: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            if trainer.global_step % trainer.log_every_n_steps == 0:
                self._losses["loss"] = f"loss {float(outputs['loss']):.3g}"
            self._bar.update(self._task, completed=trainer.global_step, **self._losses)

    def on_validation_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Tell the validation loss."""
        values = {key: float(trainer.callback_metrics[f"valid/{key}"]) for key in ("loss", "nrmse")}
        self._losses["valid"] = f"valid {values['loss']:.3g}"
        if self._bar is None and trainer.is_global_zero:
            logger.info(
                "step %d of %d: validation loss %.4g, normalised RMSE %.4g",
                *(trainer.global_step, trainer.max_steps, values["loss"], values["nrmse"]),
            )

    def on_train_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: Trainer, module: SurrogateModule, exception: BaseException) -> None:
        """Take the bar away, so that the message stands alone."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
