"""Gradients through long rollouts in little memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cliffsteer.stepper import Parameters, Stepper, check_frames


def remembers(stepper: Stepper) -> bool:
    """Whether a stepper, or one within it, has a state of its own, which its `reset` forgets."""
    inner = (getattr(stepper, name, None) for name in ("stepper", "solver", "surrogate"))
    return hasattr(stepper, "reset") or any(hasattr(part, "step") and remembers(part) for part in inner)


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
        ValueError: what `rollout` refuses, or a stepper that remembers what it did, as `Guarded` does.
    """
    if steps < 1:
        raise ValueError(f"`steps` (={steps}) must be at least 1.")
    if remembers(stepper):
        raise ValueError(
            f"`stepper` ({type(stepper).__name__}) remembers what it did, so a step cannot be computed again: take"
            " `rollout`, or give the coupling that it guards."
        )
    check_frames(stepper, frames)
    recent, produced = frames[:, -stepper.history :], []
    while sum(new.shape[1] for new in produced) < steps:
        new = checkpoint(stepper.step, recent, parameters, use_reentrant=False)
        produced.append(new)
        recent = torch.cat([recent, new.to(recent.dtype)], 1)[:, -stepper.history :]
    return torch.cat(produced, 1)[:, :steps]
