"""Solver: what every simulator is, a Stepper that also makes initial states and keeps its own, finer state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.stepper import Parameters, check_frames


@dataclass(frozen=True)
class State:
    """All that a solver carries from one step to the next, for a batch of trajectories.

    Args:
        values: the solver's variables by name, float64, batch first; staggered ones have their own shapes.
        parameters: parameter fields by name, float64, shape (batch, component).
    """

    values: dict[str, Tensor]
    parameters: dict[str, Tensor]

    def to(self, device: torch.device | str) -> State:
        """The same state on another device."""
        return State(
            {name: value.to(device) for name, value in self.values.items()},
            {name: value.to(device) for name, value in self.parameters.items()},
        )


class UnstableError(ValueError):
    """Trajectories have left what the solver can step, as a flow that has grown too fast for the time step.

    A generation of data tries their next seeds; any other ValueError of a step fails the whole shard.

    Args:
        message: one sentence, as of every ValueError.
        which: positions in the batch, or what is True there, shape (batch,).
    """

    def __init__(self, message: str, which: Sequence[int] | Tensor = ()):
        super().__init__(message)
        if isinstance(which, Tensor):
            which = which.nonzero().flatten().tolist()
        self.which = tuple(which)


class Solver(ABC):
    """A simulator: states in, states out, and a Stepper on what it shows of them.

    A subclass sets ``spec``, ``grid`` and ``dt`` in its constructor, whose keyword arguments are the solver's options,
    and implements the four methods below; ``step`` follows from them.

    Attributes:
        name: the name it is registered by.
        spec: fields of its frames, and its parameter fields.
        grid: the cell-centred grid of its frames.
        dt: time between states, in seconds unless the system says otherwise.
        history: frames that ``step`` reads, 1.
        packages: distributions that it computes with, besides torch; datasets record their versions.
    """

    name: ClassVar[str]
    history: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    spec: FieldSpec
    grid: Grid
    dt: float

    @abstractmethod
    def initial(self, seeds: Sequence[int]) -> State:
        """Initial states, one trajectory per seed.

        Each trajectory draws only from its own ``torch.Generator``, seeded by its seed, so that it does not depend on
        the others; parameter fields are drawn from it as well where the options ask for it.
        """

    @abstractmethod
    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            UnstableError: some trajectories have grown unstable; not needed where they become NaN or infinite.
        """

    @abstractmethod
    def observe(self, state: State) -> Tensor:
        """Cell-centred frames of a state, shape (batch, 1, blade, *grid), float64."""

    @abstractmethod
    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """A state that shows the last of these frames, as nearly as frames allow: the inverse of ``observe``.

        Args:
            frames: shape (batch, time, blade, *grid).
            parameters: parameter fields by name; those left out take the spec's defaults.
        """

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frame, observe(advance(restore(frames))), in the dtype of the input.

        Args:
            frames: shape (batch, time, blade, *grid); the last one is read.
            parameters: parameter fields by name; those left out take the spec's defaults.

        Returns:
            Shape (batch, 1, blade, *grid).

        Raises:
            ValueError: frames or parameters do not fit the solver, or frames hold NaN or infinite values.
        """
        check_frames(self, frames)
        return self.observe(self.advance(self.restore(frames, parameters))).to(frames.dtype)

    def restore_all(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """A batch of states that shows every one of these frames, trajectory by trajectory.

        Args:
            frames: shape (batch, time, blade, *grid).
            parameters: those of the trajectories; those left out take the spec's defaults.
        """
        each = self.read_parameters(parameters, len(frames), frames.device)
        repeated = {name: value.repeat_interleave(frames.shape[1], 0) for name, value in each.items()}
        return self.restore(frames.flatten(0, 1).unsqueeze(1), repeated)

    def read_parameters(self, parameters: Parameters | None, batch: int, device: torch.device | None = None) -> dict:
        """Parameter fields by name, defaults filled in, each (batch, component), float64."""
        packed = self.spec.pack_parameters(parameters, batch, torch.float64, device)
        return self.spec.unpack_parameters(packed)

    @staticmethod
    def require_finite(frames: Tensor) -> None:
        """Raise a ValueError when frames hold NaN or infinite values."""
        bad = ~torch.isfinite(frames).flatten(1).all(1)
        if bool(bad.any()):
            raise ValueError(
                f"`frames` holds NaN or infinite values in trajectory {int(bad.nonzero()[0])} of the batch: a solver"
                " cannot start from them; look for where they come from, such as a surrogate that diverged."
            )
