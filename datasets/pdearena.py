"""PDEArena: HDF5 files with a group "train", "valid" or "test", and in it arrays of all trajectories.

    u, vx, vy      smoke and velocity, (trajectory, time, x, y)
    x, y, t        coordinates, (trajectory, point);     dx, dy, dt     steps, (trajectory,)
    buo_y          buoyancy, (trajectory,)
    d_field        Maxwell's fields D and H, (trajectory, time, x, y, z, component), without coordinates
    h_field

The smoke's velocity is staggered, at the low faces of the cells (``at: faces``), in a closed box
(``boundary=no_slip``). Spacing and time step of the Maxwell files have to be given. The coordinates x and y of smoke
files run from wall to wall as if they were corners; dx and dy are the sizes of the cells, and count.

Source: Gupta and Brandstetter, "Towards multi-spatiotemporal-scale generalized PDE modeling" (2023); Brandstetter et
al., "Clifford neural layers for PDE modeling" (2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from cliffsteer.datasets.arrays import write_file
from cliffsteer.datasets.foreign import ForeignFile, Variable, open_file, same_everywhere
from cliffsteer.datasets.layout import AXES
from cliffsteer.datasets.mapping import FieldMapping
from cliffsteer.datasets.windows import TrajectoryDataset

MODES = ("train", "valid", "val", "test")


def read(path: Path) -> Iterator[ForeignFile]:
    """What a file of PDEArena holds, an item for each of its groups.

    Raises:
        ValueError: none of the groups, or arrays that do not fit each other.
    """
    with open_file(path) as file:
        modes = [mode for mode in MODES if mode in file]
        if not modes:
            raise ValueError(f"{path} has none of the groups train, valid and test, so it is no file of PDEArena.")
        for mode in modes:
            yield _describe(path, "valid" if mode == "val" else mode, file[mode])


def write(trajectories: TrajectoryDataset, mapping: FieldMapping, folder: Path) -> Path:
    """Write a split as one file, named after it as PDEArena's own are.

    Raises:
        ValueError: a mapping that only says how to read.
        OSError: no space left.
    """
    recipe, grid, n = trajectories.manifest.recipe, trajectories.grid, trajectories.n_trajectories

    def finish(group: h5py.Group, constants: dict[str, np.ndarray]) -> None:
        times = trajectories.manifest.start + trajectories.dt * np.arange(trajectories.n_frames)
        group.create_dataset("t", data=np.tile(times, (n, 1)))
        group.create_dataset("dt", data=np.full(n, trajectories.dt))
        for name, size, h in zip(AXES, grid.shape, grid.spacing, strict=False):
            group.create_dataset(name, data=np.tile((np.arange(size) + 0.5) * h, (n, 1)))
            group.create_dataset(f"d{name}", data=np.full(n, h))
        for name, values in constants.items():
            group.create_dataset(name, data=values)

    path = folder / f"{recipe.solver}_{trajectories.split}_{recipe.seed}.h5"
    return write_file(path, trajectories.split, trajectories, mapping, finish)


def _describe(path: Path, split: str, group: h5py.Group) -> ForeignFile:
    coordinates = [name for name in AXES if name in group]
    steps = {f"d{name}" for name in ("t", *AXES)}
    arrays = {name: d for name, d in group.items() if name not in {"t", *AXES} | steps and isinstance(d, h5py.Dataset)}
    fields = {name: d for name, d in arrays.items() if d.ndim > 2}
    if not fields:
        raise ValueError(f"{path} has no array (trajectory, time, x, ...) in the group {group.name!r}.")
    first = next(iter(fields.values()))
    has_components = first.shape[-1] == first.ndim - 3  # as many components as the other axes after time
    dim = len(coordinates) or (first.ndim - 3 if has_components else first.ndim - 2)
    outer = first.shape[: 2 + dim]
    for name, dataset in fields.items():
        if dataset.shape[: 2 + dim] != outer or dataset.ndim > 3 + dim:
            raise ValueError(f"{path} has {name} of shape {dataset.shape} beside others of {outer}: they must agree.")
    constants = {name: d for name, d in arrays.items() if d.ndim in (1, 2) and len(d) == outer[0]}
    spacing = [same_everywhere(path, f"d{name}", group[f"d{name}"]) for name in coordinates if f"d{name}" in group]
    return ForeignFile(
        path=path,
        name=path.stem,
        n_trajectories=outer[0],
        n_frames=outer[1],
        shape=outer[2:],
        variables={name: _variable(dataset, dim) for name, dataset in fields.items()},
        constants={name: np.reshape(d, (outer[0], -1)) for name, d in constants.items()},
        split=split,
        dt=same_everywhere(path, "dt", group["dt"]) if "dt" in group else None,
        spacing=tuple(spacing) if len(spacing) == dim else None,
    )


def _variable(dataset: h5py.Dataset, dim: int) -> Variable:
    def read(trajectory: int, start: int, stop: int) -> np.ndarray:
        values = dataset[trajectory, start:stop]
        return np.moveaxis(values, -1, 1) if dataset.ndim == 3 + dim else values[:, None]

    return Variable(dataset.shape[-1] if dataset.ndim == 3 + dim else 1, read)
