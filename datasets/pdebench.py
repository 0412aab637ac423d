"""PDEBench: HDF5 files of three kinds.

    density, pressure, Vx, Vy, Vz           compressible flow, (trajectory, time, x, y, z), beside
    x-coordinate, ..., t-coordinate         cell centres and times, (point,); attributes eta, zeta, M
    tensor                                  advection, Burgers, diffusion-sorption, (trajectory, time, x); coordinates
                                            likewise; attributes beta, Nu, rho

    velocity, particles                     incompressible flow, (trajectory, time, x, y, component)
    force                                   constant in time, (trajectory, x, y, component)
    t                                       times, (trajectory, time); no spatial coordinates

    0000/data, 0001/data, ...               reaction-diffusion, shallow water: a group for each trajectory with
    0000/grid/x, y, t                       (time, x, y, component) and its coordinates

The times may be one more than the frames. Boundaries are not said (``boundary=...``), nor the spacing of the second
kind. Darcy flow, which has no time, is no dataset of trajectories.

Source: Takamoto et al., "PDEBench: an extensive benchmark for scientific machine learning" (2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from cliffsteer.datasets.arrays import write_file
from cliffsteer.datasets.foreign import ForeignFile, Variable, open_file, uniform_step
from cliffsteer.datasets.layout import AXES
from cliffsteer.datasets.mapping import FieldMapping
from cliffsteer.datasets.windows import TrajectoryDataset


def read(path: Path) -> Iterator[ForeignFile]:
    """What a file of PDEBench holds, one item.

    Raises:
        ValueError: no arrays of trajectories, or arrays that do not fit each other.
    """
    with open_file(path) as file:
        numbered = sorted(name for name in file if name.isdigit())
        yield _from_groups(path, file, numbered) if numbered else _from_arrays(path, file)


def write(trajectories: TrajectoryDataset, mapping: FieldMapping, folder: Path) -> Path:
    """Write a split as one file of the first kind.

    Raises:
        ValueError: a mapping that only says how to read.
        OSError: no space left.
    """
    manifest, grid = trajectories.manifest, trajectories.grid

    def finish(file: h5py.File, constants: dict[str, np.ndarray]) -> None:
        for name, n, h in zip(AXES, grid.shape, grid.spacing, strict=False):
            file.create_dataset(f"{name}-coordinate", data=((np.arange(n) + 0.5) * h).astype("<f4"))
        times = manifest.start + trajectories.dt * np.arange(trajectories.n_frames)
        file.create_dataset("t-coordinate", data=times.astype("<f4"))
        for name, values in constants.items():
            if np.ptp(values) == 0:
                file.attrs[name] = float(values[0])
            else:
                file.create_dataset(name, data=values)

    return write_file(
        folder / f"{manifest.recipe.solver}_{trajectories.split}.hdf5", "/", trajectories, mapping, finish
    )


def _from_arrays(path: Path, file: h5py.File) -> ForeignFile:
    arrays = {name: d for name, d in file.items() if isinstance(d, h5py.Dataset) and not name.endswith("coordinate")}
    axes = [name for name in AXES if f"{name}-coordinate" in file]
    arrays.pop("t", None)
    fields = {name: d for name, d in arrays.items() if d.ndim > 2}
    if not fields:
        raise ValueError(
            f"{path} has no array (trajectory, time, x, ...), so it is no file of PDEBench's trajectories."
        )
    deepest = max(fields.values(), key=lambda d: d.ndim)
    dim = len(axes) or deepest.ndim - 3  # without coordinates components come last
    if deepest.ndim < 2 + dim or deepest.shape[1] < 2:
        raise ValueError(f"{path} has no evolution in time: {', '.join(f'{n} {d.shape}' for n, d in fields.items())}.")
    outer = deepest.shape[: 2 + dim]
    variables = {}
    for name, dataset in fields.items():
        if dataset.shape[: 2 + dim] == outer:
            variables[name] = _variable(dataset, dim, True)
        elif (dataset.shape[0], *dataset.shape[1 : 1 + dim]) == (outer[0], *outer[2:]) and dataset.ndim <= 2 + dim:
            variables[name] = _variable(dataset, dim, False)
        else:
            raise ValueError(f"{path} has {name} of shape {dataset.shape} beside others of {outer}: they must agree.")
    times = file["t-coordinate"] if "t-coordinate" in file else file["t"][0] if "t" in file else None
    constants = {name: np.reshape(d, (outer[0], -1)) for name, d in arrays.items() if d.ndim < 3 and len(d) == outer[0]}
    for name, value in file.attrs.items():
        if np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.number):
            constants[name] = np.full((outer[0], 1), float(value))
    return ForeignFile(
        path=path,
        name=path.stem,
        n_trajectories=outer[0],
        n_frames=outer[1],
        shape=outer[2:],
        variables=variables,
        constants=constants,
        dt=None if times is None else uniform_step(path, "t", times[: outer[1]]),
        spacing=tuple(uniform_step(path, name, file[f"{name}-coordinate"][:]) for name in axes) or None,
    )


def _from_groups(path: Path, file: h5py.File, names: list[str]) -> ForeignFile:
    first = file[names[0]]
    if "data" not in first or "grid" not in first:
        raise ValueError(f"{path} has a group {names[0]!r} without data and grid, so it is no file of PDEBench.")
    axes = [name for name in AXES if name in first["grid"]]
    shape = first["data"].shape  # (time, *grid, component)
    for name in names:
        if file[name]["data"].shape != shape:
            raise ValueError(
                f"{path} has {name}/data of shape {file[name]['data'].shape}, but {names[0]}/data {shape}."
            )

    def read_data(trajectory: int, start: int, stop: int) -> np.ndarray:
        return np.moveaxis(file[names[trajectory]]["data"][start:stop], -1, 1)

    return ForeignFile(
        path=path,
        name=path.stem,
        n_trajectories=len(names),
        n_frames=shape[0],
        shape=shape[1:-1],
        variables={"data": Variable(shape[-1], read_data)},
        dt=uniform_step(path, "t", first["grid/t"][: shape[0]]),
        spacing=tuple(uniform_step(path, name, first["grid"][name][:]) for name in axes),
    )


def _variable(dataset: h5py.Dataset, dim: int, moves: bool) -> Variable:
    has_components = dataset.ndim == (2 if moves else 1) + dim + 1

    def read_array(trajectory: int, start: int, stop: int) -> np.ndarray:
        values = dataset[trajectory, start:stop] if moves else dataset[trajectory][None]
        values = np.moveaxis(values, -1, 1) if has_components else values[:, None]
        return np.broadcast_to(values, (stop - start, *values.shape[1:]))

    return Variable(dataset.shape[-1] if has_components else 1, read_array)
