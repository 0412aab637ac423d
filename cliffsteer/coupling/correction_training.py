"""Training of a correction inside the loop, through the differentiable solver."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cliffsteer.coupling.checkpointing import checkpointed_rollout
from cliffsteer.coupling.correct import Correct
from cliffsteer.normalization import Normalization
from cliffsteer.stepper import Stepper, rollout
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.config import OptimizerConfig, ScheduleConfig
from cliffsteer.training.optimizers import create_optimizer, learning_rate_factor

logger = logging.getLogger(__name__)

NEGLIGIBLE = 1e-6
"""What a correction may change of a field that the solver gets right, such as a medium that stays, over its scale."""


@dataclass
class CorrectionConfig:
    """How a correction is trained.

    Args:
        steps: optimiser steps.
        batch_size: windows of one step.
        unroll: steps of the coupling in each window, through which the gradient goes.
        checkpoint: keep only the frames between steps and compute the rest again for the gradient.
        gradient_clip: largest norm of the gradient; 0 leaves it.
        seed: of the order of the windows.
        optimizer: as for `train`.
        schedule: as for `train`.
    """

    steps: int = 1000
    batch_size: int = 8
    unroll: int = 4
    checkpoint: bool = False
    gradient_clip: float = 1.0
    seed: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


def correction_scales(solver: Stepper, windows: Dataset, batch_size: int = 16) -> Normalization:
    """The scales of the data and, in the place of those of changes, of the solver's errors in one step.

    Args:
        solver: what is to be corrected.
        windows: training windows on the solver's grid, with the truth that follows.
        batch_size: windows looked at together.

    Raises:
        ValueError: a solver without error, which leaves nothing to correct.
    """
    spec = solver.spec
    squares = {name: torch.zeros(3, dtype=torch.float64) for name in [f.name for f in spec.dynamic]}
    moduli, count = torch.zeros(spec.n_parameter_blades, dtype=torch.float64), 0
    for batch in DataLoader(windows, batch_size, generator=torch.Generator()):
        frames, truth = batch["history"].double(), batch["future"][:, :1].double()
        with torch.no_grad():
            error = truth - rollout(solver, frames, 1, spec.unpack_parameters(batch["parameters"]))
        for name, values in spec.unpack(truth).items():
            wrong = spec.unpack(error)[name].square().sum(2)
            squares[name] += torch.stack([values.sum(2), values.square().sum(2), wrong]).flatten(1).mean(1) * len(truth)
        moduli += batch["parameters"].double().square().sum(0)
        count += len(truth)
    scales, means, errors = {}, {}, {}
    for f in spec.dynamic:
        mean, square, wrong = (squares[f.name] / count).tolist()
        means |= {f.name: mean} if f.grade == 0 else {}
        variance = square - (mean**2 if f.grade == 0 else 0.0)
        scales[f.name] = max(variance, 1e-12 * square) ** 0.5
        errors[f.name] = wrong**0.5 if wrong > 1e-13 * square else 0.0  # rounding of single precision
    if not any(errors.values()):
        raise ValueError("`solver` makes no error on these windows: there is nothing to correct.")
    errors = {name: error or NEGLIGIBLE * scales[name] for name, error in errors.items()}
    sizes = spec.unpack_parameters((moduli / count)[None])
    parameters = {name: float(value.sum().sqrt()) or 1.0 for name, value in sizes.items()}
    return Normalization(spec, scales, means, errors, parameters)


def create_correction(
    model: Mapping[str, Any], solver: Stepper, windows: Dataset, history: int = 1, batch_size: int = 16
) -> Surrogate:
    """An untrained correction, with the scales of the data and of the solver's errors in one step.

    Args:
        model: name and options of the network.
        solver: what is to be corrected.
        windows: training windows on the solver's grid, with the truth that follows.
        history: frames the network reads, the solver's own one included.
        batch_size: windows looked at together.

    Raises:
        ValueError: a solver without error, which leaves nothing to correct.
    """
    normalization = correction_scales(solver, windows, batch_size)
    return Surrogate.create(model, solver.spec, solver.grid, solver.dt, history, 1, normalization, "delta")


class CorrectionTraining:
    """Training of the correction of a coupling on the coupling's own rollouts, through the solver, step by step.

        L = 1/T Σ_t 1/F Σ_f ⟨|û_f(t) − u_f(t)|²⟩ / e_f²

    with e the solver's errors in one step, so that without a correction the first step has L = 1. The windows of a step
    depend on the seed and the step alone, so a training that goes on from `state_dict` is the unbroken one.

    Args:
        coupling: its correction is trained, in place.
        windows: training windows on the solver's grid, of the coupling's history and at least ``unroll`` frames after.
        config: how.

    Attributes:
        step: optimiser steps done.
        is_whole: whether weights, optimiser and step belong together; not while an optimiser step changes them.

    Raises:
        ValueError: a correction that is no Surrogate, or windows that are too short.
    """

    def __init__(self, coupling: Correct, windows: Dataset, config: CorrectionConfig | None = None):
        from cliffsteer.training.data import ShuffledBatches  # Lightning comes with it

        self.coupling, self.windows, self.config = coupling, windows, config or CorrectionConfig()
        correction = coupling.correction
        if not isinstance(correction, Surrogate):
            raise ValueError(
                f"`coupling` has a correction of type {type(correction).__name__}: only a Surrogate learns."
            )
        for name, least in (("history", coupling.history), ("future", self.config.unroll)):
            if len(windows[0][name]) < least:
                raise ValueError(
                    f"`windows` hold {len(windows[0][name])} frames of {name}: {coupling.history} before and `unroll`"
                    f" (={self.config.unroll}) after are needed."
                )
        self.correction, self.step, self.is_whole = correction.train().requires_grad_(True), 0, True
        self.optimizer = create_optimizer(correction, self.config.optimizer)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, self.config.steps, self.config.schedule)
        )
        self.batches = ShuffledBatches(len(windows), self.config.batch_size, self.config.seed)

    def advance(self) -> float:
        """One optimiser step; returns its loss.

        Raises:
            ValueError: a loss that is not a number, or frames from which the solver cannot go on.
        """
        config, spec = self.config, self.coupling.spec
        picked, device = [self.windows[i] for i in self.batches.batch(self.step)], self.correction.occupied.device
        batch = {key: torch.stack([window[key] for window in picked]).to(device) for key in picked[0]}
        parameters = spec.unpack_parameters(batch["parameters"])
        rolled = checkpointed_rollout if config.checkpoint else rollout
        try:
            predicted = rolled(self.coupling, batch["history"], config.unroll, parameters)
        except ValueError as error:
            if not self.step:  # nothing was learned yet: it is the data or the solver
                raise
            raise ValueError(
                f"Training diverged: the solver cannot go on from what the correction made of its frames at step"
                f" {self.step + 1} ({error}); try a smaller `optimizer.lr` or `unroll`."
            ) from error
        error = spec.unpack(predicted - batch["future"][:, : config.unroll])
        parts = [error[name].square().sum(2).mean() / s**2 for name, s in self.correction.loss_scales.items()]
        loss = sum(parts) / len(parts)
        if not torch.isfinite(loss):
            raise ValueError(
                f"Training diverged: the loss is not a number at step {self.step + 1}; try a smaller `optimizer.lr` or"
                " `unroll`."
            )
        self.optimizer.zero_grad()
        loss.backward()
        if config.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.correction.parameters(), config.gradient_clip)
        self.is_whole = False
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.is_whole = True
        return float(loss.detach())

    def finish(self) -> Surrogate:
        """The correction, in eval mode and with frozen weights."""
        return self.correction.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """All that a training needs to go on: step, weights, optimiser and schedule."""
        return {
            "step": self.step,
            "weights": self.correction.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            RuntimeError: weights of another network.
        """
        self.correction.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = int(state["step"])


def train_correction(coupling: Correct, windows: Dataset, config: CorrectionConfig | None = None) -> list[float]:
    """Train the correction of a coupling to the end, see `CorrectionTraining`.

    Args:
        coupling: its correction is trained, in place.
        windows: training windows on the solver's grid, of the coupling's history and at least ``unroll`` frames after.
        config: how.

    Returns:
        The loss of each optimiser step.

    Raises:
        ValueError: a correction that is no Surrogate, windows that are too short, or a loss that is not a number.
    """
    training = CorrectionTraining(coupling, windows, config)
    losses = [training.advance() for _ in range(training.config.steps)]
    training.finish()
    logger.info("correction trained: loss %.3g in the first step, %.3g in the last", losses[0], losses[-1])
    return losses
