"""Summary: what the frames of a split hold, in numbers: sizes of the fields, and what the evolution keeps.

For a field f with components f_A on cells of volume V, at each time

    total_A = Σ_cells f_A V,        square = Σ_cells |f|² V,   |f|² = Σ_A f_A²

Their drift over a trajectory is the largest distance from the value at the first frame, over the largest size that the
quantity could have: √(L^n · max_t square) for a total, L^n the volume of the domain, and max_t square for a square. So
0 means kept, and about 1 means that nothing of it is kept. Whether a system should keep them, its equations say; a
solver adds quantities of its own with a method ``conserved(frames, parameters) -> {name: values (batch, time)}``, whose
drift is measured against the largest absolute value over the trajectory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from cliffsteer import solvers
from cliffsteer.datasets.manifest import Manifest
from cliffsteer.datasets.statistics import Moments
from cliffsteer.datasets.windows import TrajectoryDataset
from cliffsteer.fields import Field

_BLOCK = 8  # frames read at once


@dataclass
class FieldSummary:
    """Numbers of one field over a split; all in the field's unit.

    Args:
        mean, deviation, low, high: of its components, all alike.
        rms: root mean square of its components.
        largest: largest magnitude √(Σ_A f_A²) of a cell.
        change: RMS of the change of its components from one frame to the next; None with one frame.
    """

    mean: float
    deviation: float
    low: float
    high: float
    rms: float
    largest: float
    change: float | None


@dataclass
class Summary:
    """Numbers of a split.

    Args:
        split: which.
        fields: those of each dynamic field.
        histories: for each quantity its values, (trajectory, time): "total <field> <blade>", "square <field>", and what
            the solver adds.
        trajectory_drifts: for each quantity the drift of each trajectory.
        parameters: lowest and highest component of each parameter field.
    """

    split: str
    fields: dict[str, FieldSummary]
    histories: dict[str, np.ndarray] = field(repr=False)
    trajectory_drifts: dict[str, np.ndarray] = field(repr=False)
    parameters: dict[str, tuple[float, float]]

    @property
    def drifts(self) -> dict[str, tuple[float, float]]:
        """Mean and largest drift of each quantity over the trajectories."""
        return {name: (float(each.mean()), float(each.max())) for name, each in self.trajectory_drifts.items()}


def summarize(trajectories: TrajectoryDataset, solver: Any = None) -> Summary:
    """Read a split once, a few frames at a time, and count.

    Args:
        trajectories: the split.
        solver: its solver, for what it says to be conserved; none by default.

    Raises:
        ValueError: damaged files, or NaN or infinite values in them.
    """
    spec, n_frames = trajectories.spec, trajectories.n_frames
    values, changes, extremes = {}, {}, {}
    for f in spec.dynamic:
        values[f.name], changes[f.name], extremes[f.name] = Moments(), Moments(), [math.inf, -math.inf, 0.0]
    histories: dict[str, np.ndarray] = {}
    for trajectory in range(trajectories.n_trajectories):
        for start in range(0, n_frames, _BLOCK):
            before = min(start, 1)  # the frame before the block, for the change
            stop = min(start + _BLOCK, n_frames)
            block = trajectories.read(trajectory, start - before, stop).double()
            for f in spec.dynamic:
                slot = spec.slots[f.name]
                part = block[:, slot.start : slot.stop].numpy()
                values[f.name].add(part[before:])
                if len(part) > 1:
                    changes[f.name].add(np.diff(part, axis=0))
                low, high, largest = extremes[f.name]
                magnitude = float(np.sqrt(np.square(part).sum(1).max()))
                extremes[f.name] = [min(low, float(part.min())), max(high, float(part.max())), max(largest, magnitude)]
            drawn = trajectories.parameters[trajectory : trajectory + 1].double()
            for name, numbers in quantities(trajectories.manifest, block[before:], solver, drawn).items():
                shape = (trajectories.n_trajectories, n_frames)
                histories.setdefault(name, np.zeros(shape))[trajectory, start:stop] = numbers
    fields = {
        name: FieldSummary(m.mean, m.deviation, *extremes[name][:2], m.rms, extremes[name][2], _change(changes[name]))
        for name, m in values.items()
    }
    packed = spec.unpack_parameters(trajectories.parameters)
    parameters = {name: (float(part.min()), float(part.max())) for name, part in packed.items()}
    return Summary(trajectories.split, fields, histories, drifts(trajectories.manifest, histories), parameters)


def quantities(
    manifest: Manifest, frames: Tensor, solver: Any = None, parameters: Tensor | None = None
) -> dict[str, np.ndarray]:
    """Totals and squares of the fields of frames (time, blade, *grid), and what the solver adds, each (time,).

    ``parameters`` are those of the trajectory, (1, blade); by default the solver's own.
    """
    spec, volume, found = manifest.spec, math.prod(manifest.grid.spacing), {}
    frames = frames.double()
    for f in spec.dynamic:
        slot = spec.slots[f.name]
        part = frames[:, slot.start : slot.stop].flatten(2)
        found |= dict(zip(_totals(manifest, f), volume * part.sum(2).T.numpy(), strict=True))
        found[f"square {f.name}"] = volume * part.square().sum((1, 2)).numpy()
    if hasattr(solver, "conserved"):
        drawn = None if parameters is None else spec.unpack_parameters(parameters)
        found |= {name: np.asarray(numbers[0]) for name, numbers in solver.conserved(frames[None], drawn).items()}
    return found


def drifts(manifest: Manifest, histories: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drift of each quantity over each trajectory, (trajectory,)."""
    extent = math.prod(manifest.grid.extent)
    sizes = {name: np.abs(numbers).max(1) for name, numbers in histories.items()}
    for f in manifest.spec.dynamic:
        sizes |= dict.fromkeys(_totals(manifest, f), np.sqrt(extent * sizes[f"square {f.name}"]))
    found = {}
    for name, numbers in histories.items():
        moved, size = np.abs(numbers - numbers[:, :1]).max(1), sizes[name]
        found[name] = np.divide(moved, size, out=np.zeros_like(moved), where=size > 0)
    return found


def find_solver(manifest: Manifest) -> solvers.Solver | None:
    """The solver that a dataset comes from; None when it is not installed, or the data come from elsewhere."""
    try:
        return solvers.create(manifest.recipe.solver, **manifest.recipe.options)
    except (ValueError, ImportError):
        return None


def _change(moments: Moments) -> float | None:
    return moments.rms if moments.count else None


def _totals(manifest: Manifest, f: Field) -> list[str]:
    """Names of the totals of a field, one for each component."""
    labels = manifest.spec.algebra.blade_names[manifest.spec.algebra.grade_slice(f.grade)]
    return [f"total {f.name} {label}" if len(labels) > 1 else f"total {f.name}" for label in labels]
