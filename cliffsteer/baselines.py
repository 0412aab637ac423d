"""Predictions without a network, to compare with."""

from __future__ import annotations

from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.stepper import Parameters, Stepper, check_frames


class Persistence:
    """Nothing changes: u(t + dt) = u(t), as a Stepper.

    Args:
        spec: the fields.
        grid: the grid.
        dt: time between frames, in seconds unless the system says otherwise.
    """

    history = 1

    def __init__(self, spec: FieldSpec, grid: Grid, dt: float):
        self.spec, self.grid, self.dt = spec, grid, dt

    @classmethod
    def of(cls, stepper: Stepper) -> Persistence:
        """Persistence on the fields and the grid of another stepper."""
        return cls(stepper.spec, stepper.grid, stepper.dt)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The last frame, shape (batch, 1, blade, *grid), zero on blades that the spec does not declare.

        Raises:
            ValueError: frames that do not fit the spec or the grid.
        """
        check_frames(self, frames)
        declared = self.spec.occupied.to(frames.device).view(-1, *[1] * self.grid.dim)
        return frames[:, -1:].masked_fill(~declared, 0)
