"""What happens beside the optimisation: checkpoints, the progress bar, images and rollouts in TensorBoard."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from cliffsteer import plotting
from cliffsteer.baselines import Persistence
from cliffsteer.evaluation import rollout_errors
from cliffsteer.storage import replacing_file
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.module import SurrogateModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


class Checkpoints(Callback):
    """Write `last.ckpt` at every validation and every few steps, and `best.ckpt` by the validation loss.

    A checkpoint takes the place of the one before only when it is complete.

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

    def on_train_batch_end(self, trainer: Trainer, module: SurrogateModule, *_: Any) -> None:
        """Write every few steps and at the last one, unless the validation that follows will."""
        step = trainer.global_step
        due = step == trainer.max_steps or (self.every and step % self.every == 0)
        if due and step % self.validate_every:
            self._write(trainer, "last.ckpt")

    def on_validation_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Write, and keep a copy when the validation loss is the smallest so far."""
        loss = float(trainer.callback_metrics["valid/loss"])
        better = loss < self.best
        self.best = min(self.best, loss)
        if trainer.state.fn == "fit":
            self._write(trainer, "last.ckpt")
        if better and trainer.is_global_zero:
            with replacing_file(self.folder / "best.ckpt") as path:
                shutil.copyfile(self.folder / "last.ckpt", path)

    def _write(self, trainer: Trainer, name: str) -> None:
        target = self.folder / name
        with replacing_file(target) if trainer.is_global_zero else contextlib.nullcontext(target) as path:
            trainer.save_checkpoint(path)


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


class Examples(Callback):
    """At each validation, in TensorBoard: the error of rollouts, and truth, prediction and error of one window.

    Args:
        window: a validation window, an item of a `WindowDataset`.
        rollouts: windows to roll out over their whole future; None for no rollouts.
        images: draw figures beside logging numbers.
    """

    def __init__(self, window: dict[str, Tensor], rollouts: Dataset | None, images: bool = True):
        self.window, self.rollouts, self.images = window, rollouts, images

    def on_validation_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Roll out, log and draw."""
        if not trainer.is_global_zero:
            return
        surrogate, writer, step = module.average, trainer.logger.experiment, trainer.global_step
        if self.rollouts is not None:
            curve = rollout_errors(surrogate, self.rollouts)["overall"]["nrmse"]
            writer.add_scalar(f"valid/rollout_nrmse_{len(curve)}_steps", curve[-1], step)
            if self.images:
                persistence = rollout_errors(Persistence.of(surrogate), self.rollouts)["overall"]["nrmse"]
                curves = {"network": curve, "persistence": persistence}
                figure = plotting.error_curves(curves, surrogate.dt, f"rollouts after {step} training steps")
                writer.add_image("valid/rollout", _pixels(figure), step, dataformats="HWC")
        if self.images and surrogate.grid.dim >= 2:
            writer.add_image("valid/frames", _pixels(self._panels(surrogate)), step, dataformats="HWC")

    def _panels(self, surrogate: Surrogate) -> Figure:
        device = surrogate.occupied.device
        window = {key: value[None].to(device, surrogate.dtype) for key, value in self.window.items()}
        with torch.no_grad():
            prediction = surrogate(window["history"], window["parameters"])[0, 0]
        truth = window["future"][0, 0]
        frames = {"truth": truth, "prediction": prediction}
        return plotting.field_panels(surrogate.spec, surrogate.grid, frames, {"error": prediction - truth})


def _pixels(figure: Figure) -> np.ndarray:
    """A figure as an image, (height, width, 3), uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
