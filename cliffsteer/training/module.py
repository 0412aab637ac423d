"""The loss, the optimiser and the running average of the weights, in Lightning's terms."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cliffsteer.metrics import FieldErrors
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.config import TrainConfig
from cliffsteer.training.optimizers import create_optimizer, learning_rate_factor

CHECKPOINT_VERSION = 1
"""Of what a checkpoint holds; it grows when a checkpoint of before can no longer be taken up."""


class DivergenceError(ValueError):
    """Training reached a loss or a gradient that is not a number."""


class SurrogateModule(LightningModule):
    """Trains a surrogate on windows.

    The loss is the mean over fields of the mean squared error in normalised units, so every field counts alike,
    whatever its unit and its number of components:

        L = 1/F Σ_f ⟨|û_f − u_f|²⟩ / s_f²

    with s_f the scale of the field's changes ("delta") or of the field ("state").

    Args:
        surrogate: what is trained.
        config: the run; ``optimizer``, ``schedule`` and ``trainer`` are read.

    Attributes:
        average: the running average of the weights that is validated and kept; the surrogate itself when it is off.
    """

    def __init__(self, surrogate: Surrogate, config: TrainConfig):
        super().__init__()
        self.config = config
        self.surrogate = surrogate
        decay = config.trainer.ema_decay
        self.average = copy.deepcopy(surrogate).requires_grad_(False).eval() if decay else surrogate
        spec, fields = surrogate.spec, len(surrogate.spec.dynamic)
        weights = torch.zeros(spec.n_blades)
        for field in spec.dynamic:
            slot = spec.slots[field.name]
            weights[slot.start : slot.stop] = 1 / (fields * slot.size)
        self.register_buffer("blade_weights", weights, persistent=False)
        self.errors = FieldErrors(spec, surrogate.future, surrogate.loss_scales)

    # ------------------------------------------------------------------------------------------------ training

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch of windows.

        Raises:
            DivergenceError: the loss is not a number.
        """
        history, future = batch["history"], batch["future"]
        error = self.surrogate.predict(history, batch["parameters"]) - self.surrogate.target(history, future)
        loss = error.square().transpose(0, 2).flatten(1).mean(1) @ self.blade_weights.to(error.dtype)
        if not torch.isfinite(loss):
            self._stop("the loss")
        self.log("train/loss", loss)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradient, before clipping, and stop when it is not a number."""
        norm = nn.utils.get_total_norm([p.grad for p in self.surrogate.parameters() if p.grad is not None])
        # in half precision the scaler skips such steps and tries smaller scales
        if not torch.isfinite(norm) and self.config.trainer.precision != "16-mixed":
            self._stop("the gradient")
        self.log("train/gradient_norm", norm)
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take a step and move the running average: a ← a + (1 − d)(w − a), with d = min(decay, (1 + n) / (10 + n))."""
        super().optimizer_step(*arguments, **options)
        if self.average is self.surrogate:
            return
        step = self.global_step + 1
        decay = min(self.config.trainer.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.surrogate.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
            for mean, value in zip(self.average.buffers(), self.surrogate.buffers(), strict=True):
                mean.copy_(value)

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimiser and its schedule, moved every step."""
        optimizer = create_optimizer(self.surrogate, self.config.optimizer)
        steps, schedule = self.config.trainer.steps, self.config.schedule
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps, schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _stop(self, what: str) -> None:
        raise DivergenceError(
            f"Training diverged: {what} is not a number at step {self.global_step + 1}; try a smaller `optimizer.lr` or"
            " `trainer.gradient_clip`, and check the data with `cliffsteer verify`."
        )

    # ---------------------------------------------------------------------------------------------- validation

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add a batch of windows to the errors."""
        self.errors.update(self.average(batch["history"], batch["parameters"]), batch["future"])

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the averaged weights and the errors of each field, over all windows."""
        errors = self.errors.compute()
        self.errors.reset()
        values = {"loss": errors["overall"]["normalized_mse"], "nrmse": errors["overall"]["nrmse"]}
        values |= {f"nrmse_{name}": field["nrmse"] for name, field in errors["fields"].items()}
        self.log_dict({f"valid/{name}": sum(times) / len(times) for name, times in values.items()}, sync_dist=True)

    # --------------------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the run's config, and what its data were, in the checkpoint."""
        checkpoint["format_version"] = CHECKPOINT_VERSION
        checkpoint["train_config"] = self.config.to_dict()
        checkpoint["normalization"] = self.surrogate.normalization.to_dict()
        checkpoint["system"] = system(self.surrogate)


def system(data: Any) -> dict[str, Any]:
    """Fields, grid and time step of a surrogate or a dataset, JSON-ready."""
    return {"spec": data.spec.to_dict(), "grid": data.grid.to_dict(), "dt": data.dt}
