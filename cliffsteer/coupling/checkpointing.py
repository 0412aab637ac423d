"""Gradients through long rollouts in little memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cliffsteer.stepper import Parameters, Stepper, check_frames


def checkpointed_rollout(stepper: Stepper, frames: Tensor, steps: int, parameters: Parameters | None = None) -> Tensor:
    """`rollout`, keeping for the gradient only the frames between steps.

    What happens inside a step is computed again when the gradient goes through it: the time of one more rollout, for
    memory that does not depend on what a step does inside. The result and its gradient are those of `rollout`.

    A stepper that remembers something between its steps, be it inside others, says by a method ``replay`` how one is
    done again, see `Guarded.replay`.

    Args:
        stepper: any Stepper that gives the same frames for the same input, as far as it has no ``replay``.
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
    remembering = [part for part in _parts(stepper, set()) if hasattr(part, "replay")]
    while sum(new.shape[1] for new in produced) < steps:
        new = checkpoint(
            stepper.step, recent, parameters, use_reentrant=False, context_fn=lambda: _contexts(remembering)
        )
        produced.append(new)
        recent = torch.cat([recent, new.to(recent.dtype)], 1)[:, -stepper.history :]
    return torch.cat(produced, 1)[:, :steps]


def _parts(stepper: Any, seen: set[int]) -> Iterator[Any]:
    """A stepper and those that it is made of, each once."""
    if id(stepper) in seen:
        return
    seen.add(id(stepper))
    yield stepper
    for value in getattr(stepper, "__dict__", {}).values():
        if callable(getattr(value, "step", None)):
            yield from _parts(value, seen)


def _contexts(remembering: list[Any]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of a step, and of doing it again, which may happen more than once."""
    return contextlib.nullcontext(), _Together([part.replay() for part in remembering])


class _Together:
    """Several contexts as one that can be entered again."""

    def __init__(self, contexts: list[AbstractContextManager]):
        self.contexts = contexts

    def __enter__(self) -> None:
        self.stack = contextlib.ExitStack()
        for context in self.contexts:
            self.stack.enter_context(context)

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)
