"""Gradients through long rollouts in little memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cliffsteer.stepper import Parameters, Stepper, check_frames


def checkpointed_rollout(stepper: Stepper, frames: Tensor, steps: int, parameters: Parameters | None = None) -> Tensor:
    """`rollout`, keeping for the gradient only the frames between steps.

    What happens inside a step is computed again when the gradient goes through it: the time of one more rollout, for
    memory that does not depend on what a step does inside. The result and its gradient are those of `rollout`.

    Args:
        stepper: any Stepper that gives the same frames for the same input.
        frames: initial frames, shape (batch, time, blade, *grid).
        steps: number of frames to produce, >= 1.
        parameters: parameter fields by name.

    Returns:
        Shape (batch, steps, blade, *grid).

    Raises:
        ValueError: what `rollout` refuses.
    """
    if steps < 1:
        raise ValueError(f"`steps` (={steps}) must be at least 1.")
    check_frames(stepper, frames)
    recent, produced = frames[:, -stepper.history :], []
    while sum(new.shape[1] for new in produced) < steps:
        new = checkpoint(stepper.step, recent, parameters, use_reentrant=False)
        produced.append(new)
        recent = torch.cat([recent, new.to(recent.dtype)], 1)[:, -stepper.history :]
    return torch.cat(produced, 1)[:, :steps]
