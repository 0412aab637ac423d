"""The Well: HDF5 files whose groups ``t0_fields``, ``t1_fields`` and ``t2_fields`` hold fields by their tensor rank.

Shards of cliffsteer have this layout already (``format``), so its readers open a shard as it is, and a folder
``data/<split>`` of shards is all that they need. Reading goes by The Well's attributes alone: fields that are constant
in time, over trajectories or along an axis are repeated; scalars that are constant in time are constants. A tensor of
rank 2 has no grade and cannot be mapped. Walls are read as "no_slip" unless the file (or ``boundary=...``) says more.

Source: Ohana et al., "The Well: a large-scale collection of diverse physics simulations for machine learning" (2024),
and its data format page.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cliffsteer.datasets.files import AtomicFile
from cliffsteer.datasets.foreign import ForeignFile, Variable, open_file, uniform_step
from cliffsteer.datasets.mapping import FieldMapping
from cliffsteer.datasets.windows import TrajectoryDataset
from cliffsteer.grid import BOUNDARIES

_KINDS = {"PERIODIC": "periodic", "WALL": "no_slip", "OPEN": "open"}
_SPLITS = ("train", "valid", "test")
_GROUPS = ("t0_fields", "t1_fields", "t2_fields")


def read(path: Path) -> Iterator[ForeignFile]:
    """What a file of The Well holds, one item.

    Raises:
        ValueError: not its layout, a grid that is not Cartesian or not equidistant, or fields that do not fit.
    """
    with open_file(path) as file:
        missing = [name for name in ("dimensions", "scalars", *_GROUPS) if name not in file]
        if missing:
            raise ValueError(f"{path} has no group {missing[0]!r}, so it is no file of The Well.")
        kind = str(file.attrs.get("grid_type", "cartesian"))
        if kind != "cartesian":
            raise ValueError(f"{path} has a grid of the type {kind!r}: only 'cartesian' ones are equidistant.")
        yield _describe(path, file)


def write(trajectories: TrajectoryDataset, mapping: FieldMapping, folder: Path) -> Path:
    """Copy the shards of a split to ``data/<split>``, where The Well's reader looks for them.

    Raises:
        OSError: no space left.
    """
    target = folder / "data" / trajectories.split
    target.mkdir(parents=True, exist_ok=True)
    for entry in trajectories.manifest.shards[trajectories.split]:
        source = trajectories.root / entry.file
        out = AtomicFile(target / source.name)
        try:
            with source.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
            out.seal()
            out.publish()
        finally:
            out.abort()
    return target


def _describe(path: Path, file: h5py.File) -> ForeignFile:
    dims, dimensions = [_text(name) for name in file["dimensions"].attrs["spatial_dims"]], file["dimensions"]
    coordinates = [_first(dimensions[name]) for name in dims]
    shape, times = tuple(len(values) for values in coordinates), _first(dimensions["time"])
    n_trajectories = int(file.attrs["n_trajectories"])
    variables = {}
    for rank, group in enumerate(_GROUPS):
        for name in map(_text, file[group].attrs["field_names"]):
            variables[name] = _variable(path, file[group][name], rank, shape)
    constants = {}
    for name in map(_text, file["scalars"].attrs["field_names"]):
        scalar = file["scalars"][name]
        if not scalar.attrs["time_varying"]:
            values = np.asarray(scalar[()], np.float64)
            constants[name] = np.broadcast_to(values, (n_trajectories,)).reshape(-1, 1)
    return ForeignFile(
        path=path,
        name=_text(file.attrs.get("dataset_name", path.stem)),
        n_trajectories=n_trajectories,
        n_frames=len(times),
        shape=shape,
        variables=variables,
        constants=constants,
        split=path.parent.name if path.parent.name in _SPLITS else None,
        dt=uniform_step(path, "time", times),
        spacing=_spacing(path, dims, coordinates),
        boundary=_boundary(file, dims),
    )


def _variable(path: Path, dataset: h5py.Dataset, rank: int, shape: tuple[int, ...]) -> Variable:
    moves, sampled = bool(dataset.attrs["time_varying"]), bool(dataset.attrs["sample_varying"])
    stored = tuple(n if varies else 1 for n, varies in zip(shape, dataset.attrs["dim_varying"], strict=True))
    found = dataset.shape[sampled + moves :]
    components = (len(shape),) * rank
    if found not in ((*stored, *components), (*(n for n in stored if n > 1), *components)):
        raise ValueError(f"{path} has {dataset.name} of shape {dataset.shape}, which its attributes do not explain.")

    def read_array(trajectory: int, start: int, stop: int) -> np.ndarray:
        index = (trajectory,) * sampled + (slice(start, stop),) * moves
        values = np.asarray(dataset[index]).reshape((stop - start) if moves else 1, *stored, -1)
        return np.broadcast_to(np.moveaxis(values, -1, 1), (stop - start, len(shape) ** rank, *shape))

    return Variable(len(shape) ** rank, read_array)


def _spacing(path: Path, dims: list[str], coordinates: list[np.ndarray]) -> tuple[float, ...] | None:
    steps = [uniform_step(path, name, values) for name, values in zip(dims, coordinates, strict=True)]
    return None if None in steps else tuple(steps)


def _boundary(file: h5py.File, dims: list[str]) -> Any:
    """A pair of kinds for each axis; open where nothing is said, as in The Well's own reader."""
    sides = [["open", "open"] for _ in dims]
    for condition in file.get("boundary_conditions", {}).values():
        kind = _text(condition.attrs.get("kind", ""))
        kind = kind if kind in BOUNDARIES else _KINDS.get(_text(condition.attrs["bc_type"]).upper(), "open")
        names = [_text(name) for name in condition.attrs["associated_dims"]]
        mask = np.asarray(condition["mask"][()], bool)
        for axis, name in enumerate(names):
            along = np.moveaxis(mask, axis, 0)
            for side in (0, -1):
                if along[side].all():
                    sides[dims.index(name)][side] = kind
    return tuple(map(tuple, sides))


def _first(dataset: h5py.Dataset) -> np.ndarray:
    """Coordinates of the first trajectory."""
    return dataset[0] if dataset.attrs["sample_varying"] else dataset[()]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
