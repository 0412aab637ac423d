"""Stepper: anything that advances frames in time. Simulators, trained surrogates and hybrids of both are Steppers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid, check_grid_shape

Parameters = Mapping[str, Any]
"""Parameter fields by name: components of shape (batch, component) or (component,)."""


@runtime_checkable
class Stepper(Protocol):
    """Advances frames by ``dt``.

    Attributes:
        spec: the fields it reads and returns.
        grid: the grid it lives on.
        dt: time between frames, in seconds unless the system says otherwise.
        history: number of frames it reads.
    """

    spec: FieldSpec
    grid: Grid
    dt: float
    history: int

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frame or frames.

        Args:
            frames: at least ``history`` frames, oldest first, shape (batch, time, blade, *grid); the last
                ``history`` of them are read.
            parameters: parameter fields by name; those left out take the spec's defaults.

        Returns:
            The frames that follow, shape (batch, future, blade, *grid), future >= 1; zero on blades that the spec
            does not declare.
        """
        ...


def rollout(stepper: Stepper, frames: Tensor, steps: int, parameters: Parameters | None = None) -> Tensor:
    """Advance frames ``steps`` times by ``stepper.dt``, feeding its output back.

    Args:
        stepper: any Stepper.
        frames: initial frames, shape (batch, time, blade, *grid) with time >= ``stepper.history``.
        steps: number of frames to produce, >= 1.
        parameters: parameter fields by name.

    Returns:
        The frames after the initial ones, shape (batch, steps, blade, *grid).

    Raises:
        ValueError: too few initial frames, a shape that does not fit the stepper, or ``steps`` < 1.
    """
    if steps < 1:
        raise ValueError(f"`steps` (={steps}) must be at least 1.")
    check_frames(stepper, frames)
    recent = frames[:, frames.shape[1] - stepper.history :]
    produced: list[Tensor] = []
    count = 0
    while count < steps:
        new = stepper.step(recent, parameters)
        produced.append(new)
        count += new.shape[1]
        recent = torch.cat([recent, new.to(recent.dtype)], 1)[:, -stepper.history :]
    return torch.cat(produced, 1)[:, :steps]


def check_frames(stepper: Stepper, frames: Tensor) -> None:
    """Raise a ValueError unless the frames fit the stepper's spec, grid and history."""
    stepper.spec.check_frames(frames)
    check_grid_shape(frames, stepper.grid)
    if frames.shape[1] < stepper.history:
        raise ValueError(f"`frames` holds {frames.shape[1]} frame(s), but the stepper reads {stepper.history}.")
