"""Writing a split as one HDF5 file of arrays over all trajectories, as PDEArena and PDEBench have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from cliffsteer.datasets.files import AtomicFile, uninterrupted
from cliffsteer.datasets.mapping import FieldMapping
from cliffsteer.datasets.windows import TrajectoryDataset


def write_file(
    path: Path,
    group: str,
    trajectories: TrajectoryDataset,
    mapping: FieldMapping,
    finish: Callable[[h5py.Group, dict[str, np.ndarray]], None],
) -> Path:
    """Write the arrays of a split, frame by frame; the file has its name only when it is complete.

    An array has the shape (trajectory, time, *grid), or (trajectory, time, *grid, component) where one name stands for
    several components; float32.

    Args:
        path: the file.
        group: where in it.
        trajectories: the split.
        mapping: the names.
        finish: writes what else there is, given the group and the constants by name, (trajectory,) or
            (trajectory, component).

    Raises:
        ValueError: the mapping is of other fields, or only says how to read.
        OSError: no space left.
    """
    out = AtomicFile(path)
    try:
        with uninterrupted(), h5py.File(out, "w", libver=("v110", "v110")) as file:
            place = file.require_group(group)
            _write_frames(place, trajectories, mapping)
            constants = mapping.constants(trajectories.parameters, trajectories.spec)
            numbers = {name: values.double().numpy() for name, values in constants.items()}
            finish(place, {name: values[:, 0] if values.shape[1] == 1 else values for name, values in numbers.items()})
        out.seal()
        out.publish()
    finally:
        out.abort()
    return path


def _write_frames(group: h5py.Group, trajectories: TrajectoryDataset, mapping: FieldMapping) -> None:
    n, frames = trajectories.n_trajectories, trajectories.n_frames
    for trajectory in range(n):
        for time in range(frames):
            arrays = mapping.components(trajectories.read(trajectory, time, time + 1), trajectories.spec)
            for name, part in arrays.items():
                values = part[0, 0] if part.shape[1] == 1 else part[0].movedim(0, -1)
                if name not in group:
                    group.create_dataset(name, (n, frames, *values.shape), "<f4")
                group[name][trajectory, time] = values.numpy()
