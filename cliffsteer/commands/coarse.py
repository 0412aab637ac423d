"""Coarse solvers as a baseline: what the time of a surrogate buys without a network."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import ListConfig
from torch import Tensor

from cliffsteer.baselines import CoarseSolver
from cliffsteer.commands.couplings import native_solver, scaled_substeps, with_frame_step
from cliffsteer.commands.errors import UsageError
from cliffsteer.cost import solver_seconds
from cliffsteer.datasets import TrajectoryDataset, WindowDataset
from cliffsteer.functional import block_mean
from cliffsteer.nn.checks import is_whole
from cliffsteer.surrogate import Surrogate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """A coarse solver and its cost.

    Args:
        stepper: the solver, seen on the grid of the data.
        cells: of its own grid.
        seconds: for a frame of one trajectory.
    """

    stepper: CoarseSolver
    cells: tuple[int, ...]
    seconds: float

    def cost(self) -> dict[str, Any]:
        """JSON-ready, as `cliffsteer.cost.cost` has it for a surrogate."""
        return {"cells": list(self.cells), "seconds_per_frame": self.seconds}


def check_factors(asked: Any) -> None:
    """Refuse what `coarse` cannot be.

    Raises:
        UsageError: neither None, "auto", nor whole numbers.
    """
    if asked is None or asked == "auto":
        return
    if not all(is_whole(factor) for factor in _listed(asked)):
        raise UsageError(
            f"`coarse` (={asked}) must be 'auto' or factors of the cells' size, whole numbers as in coarse=[2,4]."
        )


def coarse_solvers(
    asked: Any, surrogate: Surrogate, trajectories: TrajectoryDataset, batch_size: int, seconds: float
) -> dict[int, Measured]:
    """The solver of a dataset on coarser grids, by factor, each with its time for a frame.

    All options are those of the dataset, but that of several substeps as many fewer are taken as the cells are larger,
    which keeps the Courant number.

    Args:
        asked: factors, or "auto": the finest coarse grid on which a frame takes the solver no longer than the
            surrogate.
        surrogate: what they are compared with.
        trajectories: the data.
        batch_size: trajectories that are run together while time is measured.
        seconds: what the surrogate takes for a frame of one trajectory.

    Raises:
        UsageError: a solver that cannot be run on a coarser grid, or a factor that does not fit the grid.
    """
    frames, parameters = _start(trajectories, batch_size, surrogate.occupied.device)
    if asked != "auto":
        found = {f: _measured(f, surrogate, trajectories, frames, parameters) for f in sorted(set(_listed(asked)))}
        return found
    best: dict[int, Measured] = {}
    for factor in _factors(surrogate.grid.shape):
        try:
            best = {factor: _measured(factor, surrogate, trajectories, frames, parameters)}
        except UsageError:
            if not best:
                raise
            break
        if best[factor].seconds <= seconds:
            return best
    if not best:
        raise UsageError(f"`coarse` (=auto): a grid of {surrogate.grid.shape} cells has no coarser one that nests.")
    ((factor, solver),) = best.items()
    logger.info(
        "No coarse solver is as cheap as the surrogate (%.3g s a frame): that with %d times larger cells takes %.3g s.",
        *(seconds, factor, solver.seconds),
    )
    return best


def own_cost(surrogate: Surrogate, trajectories: TrajectoryDataset, batch_size: int) -> dict[str, Any]:
    """Cells and seconds for a frame of the solver on the grid of the data."""
    frames, parameters = _start(trajectories, batch_size, surrogate.occupied.device)
    return _measured(1, surrogate, trajectories, frames, parameters).cost()


# ----------------------------------------------------------------------------------------------------- private


def _listed(asked: Any) -> list[Any]:
    is_list = isinstance(asked, ListConfig | Sequence) and not isinstance(asked, str)
    return list(asked) if is_list else [asked]


def _factors(shape: Sequence[int]) -> list[int]:
    """Whole factors that leave two cells on each axis at least."""
    common = math.gcd(*shape)
    return [f for f in range(2, common + 1) if common % f == 0 and min(shape) // f >= 2]


def _start(trajectories: TrajectoryDataset, batch_size: int, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch of single frames from the middle of the trajectories, and their parameters."""
    windows = WindowDataset(trajectories, 1, 1)
    found = [windows[(len(windows) // 2 + i) % len(windows)] for i in range(batch_size)]
    packed = torch.stack([window["parameters"] for window in found]).to(device)
    return torch.stack([w["history"] for w in found]).to(device), trajectories.spec.unpack_parameters(packed)


def _measured(
    factor: int, surrogate: Surrogate, trajectories: TrajectoryDataset, frames: Tensor, parameters: dict[str, Tensor]
) -> Measured:
    recipe, shape = trajectories.manifest.recipe, surrogate.grid.shape
    if any(n % factor for n in shape):
        raise UsageError(f"`coarse` (={factor}) must divide all sides of the grid of the data, {shape}.")
    try:
        cells = shape[-1] // factor
        substeps = scaled_substeps(trajectories, cells)
        solver = native_solver(trajectories, cells, None if substeps is None else {"substeps": substeps})
        stepper = CoarseSolver(surrogate, with_frame_step(solver, recipe.every))
        seconds = solver_seconds(solver, block_mean(frames, factor, len(shape)), parameters, recipe.every)
    except ValueError as error:
        raise UsageError(
            f"`coarse` (={factor}): the solver {recipe.solver!r} of the data cannot be run on a grid {factor} times"
            f" coarser: {error}"
        ) from error
    return Measured(stepper, solver.grid.shape, seconds)
