"""The loss, the optimiser and the running average of the weights, in Lightning's terms."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.metrics import FieldErrors
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.augmentation import RandomSymmetries
from cliffsteer.training.config import TrainConfig
from cliffsteer.training.guard import DivergenceError, Guard
from cliffsteer.training.losses import create_loss
from cliffsteer.training.noise import InputNoise
from cliffsteer.training.optimizers import create_optimizer, learning_rate_factor
from cliffsteer.training.parallel import (
    average_whole_gradients,
    gathered,
    mean_over_processes,
    shard,
    shares_weights,
    total_norm,
)
from cliffsteer.training.weights import kept_model
from cliffsteer.training.wrapping import checkpoint_blocks, keep_full_precision, named_parts

CHECKPOINT_VERSION = 1
"""Of what a checkpoint holds; it grows when a checkpoint of before can no longer be taken up."""

__all__ = ["CHECKPOINT_VERSION", "DivergenceError", "SurrogateModule", "fingerprint", "system"]


class SurrogateModule(LightningModule):
    """Trains a surrogate on windows.

    Args:
        surrogate: what is trained.
        config: the run; of ``data`` what changes windows, and ``loss``, ``optimizer``, ``schedule``, ``trainer``.
        data: `fingerprint` of what it is trained on, for its checkpoints.

    Attributes:
        average: the running average of the weights that is validated and kept; the surrogate itself when it is off.
        validated: the average, whole in every process; during validation only.
        loss: what is minimised.
        guard: stops a training that diverges.

    Raises:
        ValueError: options that do not fit the surrogate.
    """

    def __init__(self, surrogate: Surrogate, config: TrainConfig, data: str | None = None):
        super().__init__()
        self.config, self.data, settings = config, data, config.trainer
        self.surrogate = surrogate
        if settings.precision.endswith("mixed"):
            keep_full_precision(surrogate.network)
        self.average = copy.deepcopy(surrogate).requires_grad_(False).eval() if settings.ema_decay else surrogate
        if settings.checkpoint_blocks:
            checkpoint_blocks(surrogate.network)
        if settings.compile != "off":
            surrogate.network.compile(mode=settings.compile)
        self.loss = create_loss(surrogate, config.loss)
        self.symmetries: SharedSymmetries | None = None
        parts = settings.devices * settings.nodes * settings.accumulate
        if config.data.augment == "rotations":
            self.symmetries = SharedSymmetries(surrogate.spec, surrogate.grid, settings.seed, parts)
        self.noise: InputNoise | None = None
        if config.data.noise:
            self.noise = InputNoise(surrogate.spec, surrogate.loss_scales, config.data.noise, settings.seed, parts)
        self.guard = Guard(config)
        self.errors = FieldErrors(surrogate.spec, surrogate.future, surrogate.loss_scales)
        self.gradient_norm: Tensor | None = None
        self._losses: list[Tensor] = []
        self._values: dict[str, Tensor | float] = {}
        self._whole: list[Surrogate] = []  # a list, which makes it no part of the module's state
        self._sharded = False

    def configure_model(self) -> None:
        """Share the weights among the processes, where the strategy says so."""
        if shares_weights(self.config.trainer) and not self._sharded:
            shard(self.surrogate.network, self.device_mesh["data_parallel"])
            if self.average is not self.surrogate:
                shard(self.average.network, self.device_mesh["data_parallel"])
            self._sharded = True

    # ------------------------------------------------------------------------------------------------ training

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch of windows.

        Raises:
            DivergenceError: the loss is not a number, or far above its best.
        """
        part = self.global_rank + self.config.trainer.devices * self.config.trainer.nodes * len(self._losses)
        for change in filter(None, (self.symmetries, self.noise)):
            batch = change(batch, self.global_step, part)
        parts = self.loss(self.surrogate, batch, self.global_step)
        self._losses.append(torch.stack([value.detach() for value in parts.values()]))
        if len(self._losses) == self.config.trainer.accumulate:
            values = mean_over_processes(torch.stack(self._losses).mean(0))
            self._losses.clear()
            self.guard.check_loss(float(values[0]), self.global_step, self.loss.length(self.global_step))
            if self._is_written:
                self._values = {f"train/{name}": value for name, value in zip(parts, values, strict=True)}
        return parts["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure the norm of the gradient, before clipping, and stop when it is not a number."""
        if self._sharded:
            average_whole_gradients(self.surrogate.parameters())
        norm = total_norm([p.grad for p in self.surrogate.parameters() if p.grad is not None])
        # in half precision the scaler skips such steps and tries smaller scales
        if not torch.isfinite(norm) and self.config.trainer.precision != "16-mixed":
            self.guard.stop("the gradient is not a number", self.global_step)
        self.gradient_norm = norm
        if self._is_written:
            self._values |= {"train/gradient_norm": norm, "train/learning_rate": optimizer.param_groups[0]["lr"]}
            for name, part in named_parts(self.surrogate.network):
                gradients = [p.grad for p in part.parameters() if p.grad is not None]
                if gradients:
                    self._values[f"gradients/{name}"] = total_norm(gradients)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, **_: Any) -> None:
        """Scale the gradient down to ``trainer.gradient_clip`` where its norm is above."""
        limit = self.config.trainer.gradient_clip
        if limit:
            factor = (limit / (self.gradient_norm + 1e-6)).clamp(max=1.0)
            for weight in self.surrogate.parameters():
                if weight.grad is not None:
                    weight.grad.mul_(factor)

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

    def on_train_batch_end(self, *_: Any) -> None:
        """Write the values of the step, if they are to be written."""
        if self._values and not self._losses:
            self._write(self._values)
            self._values = {}

    @property
    def _is_written(self) -> bool:
        """Whether the values of the step that is under way are written."""
        return (self.global_step + 1) % self.config.trainer.log_every == 0

    def _write(self, values: Mapping[str, Tensor | float]) -> None:
        """Write values to TensorBoard, at the number of optimiser steps done.

        Lightning's own `log` counts otherwise, and costs time at every step, also where nothing is written.
        """
        writer = self.logger.experiment
        for name, value in values.items():
            writer.add_scalar(name, float(value), self.global_step)
        writer.flush()

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimiser and its schedule, moved every step."""
        optimizer = create_optimizer(self.surrogate, self.config.optimizer)
        steps, schedule = self.config.trainer.steps, self.config.schedule
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps, schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ---------------------------------------------------------------------------------------------- validation

    @property
    def validated(self) -> Surrogate:
        """The surrogate that is validated, whole in every process."""
        return self._whole[0] if self._whole else self.average

    def whole_average(self) -> Surrogate:
        """The running average with all its weights; all processes must call it."""
        if not self._sharded:
            return self.average
        source = self.average
        with torch.random.fork_rng(devices=[]):
            whole = Surrogate.create(
                source.model,
                source.spec,
                source.grid,
                source.dt,
                source.history,
                source.future,
                source.normalization,
                source.prediction,
                source.projection_names,
                source.hidden,
            )
        whole.load_state_dict(gathered(source.state_dict()))
        if self.config.trainer.precision.endswith("mixed"):
            keep_full_precision(whole.network)
        return whole.to(source.occupied.device, source.dtype).eval().requires_grad_(False)

    def on_validation_start(self) -> None:
        """Gather the weights where they are shared."""
        if self._sharded:
            self._whole = [self.whole_average()]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add a batch of windows to the errors."""
        self.errors.update(self.validated(batch["history"], batch["parameters"]), batch["future"])

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the averaged weights and the errors of each field, over all windows."""
        errors = self.errors.compute()
        self.errors.reset()
        values = {"loss": errors["overall"]["normalized_mse"], "nrmse": errors["overall"]["nrmse"]}
        values |= {f"nrmse_{name}": field["nrmse"] for name, field in errors["fields"].items()}
        means = torch.tensor([sum(times) / len(times) for times in values.values()], device=self.device)
        named = {f"valid/{name}": mean for name, mean in zip(values, mean_over_processes(means), strict=True)}
        self.log_dict(named, logger=False)
        self._write(named)

    def on_validation_end(self) -> None:
        """Let go of the gathered weights."""
        self._whole.clear()

    # --------------------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the run's config, and what its data were, in the checkpoint."""
        checkpoint["format_version"] = CHECKPOINT_VERSION
        checkpoint["train_config"] = self.config.to_dict()
        checkpoint["normalization"] = self.surrogate.normalization.to_dict()
        checkpoint["system"] = system(self.surrogate)
        checkpoint["data"] = self.data
        checkpoint["model"] = kept_model(self.surrogate.model)
        checkpoint["guard"] = self.guard.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what the guard had seen."""
        if "guard" in checkpoint:
            self.guard.load_state_dict(checkpoint["guard"])


class SharedSymmetries(RandomSymmetries):
    """Symmetries for the windows of a step that do not depend on the number of parts in which these come.

    Args:
        spec: the fields.
        grid: the grid.
        seed: of the choice.
        parts: of the windows of a step; part p holds the windows p, p + parts, p + 2 parts, ...
    """

    def __init__(self, spec: FieldSpec, grid: Grid, seed: int, parts: int):
        super().__init__(spec, grid, seed)
        self.parts = parts

    def choice(self, step: int, windows: int, part: int = 0) -> Tensor:
        """Which symmetry each window of a part gets, as positions in ``elements``."""
        return super().choice(step, windows * self.parts)[part :: self.parts]


def fingerprint(trajectories: TrajectoryDataset) -> str:
    """Hexadecimal sha256 of the trajectories of a split, by the checksums of the shards that they are read from."""
    shards = trajectories.manifest.shards[trajectories.split]
    told = [[entry.sha256, *entry.trajectories] for entry in shards]
    return hashlib.sha256(json.dumps([told, trajectories.n_trajectories]).encode()).hexdigest()


def system(data: Any) -> dict[str, Any]:
    """Fields, grid and time step of a surrogate or a dataset, JSON-ready."""
    return {"spec": data.spec.to_dict(), "grid": data.grid.to_dict(), "dt": data.dt}
