"""ShardWriter: writes a shard frame by frame; it is only visible when complete."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cliffsteer.datasets.files import AtomicFile, uninterrupted, write_bytes
from cliffsteer.datasets.format import GROUP, Header, checksum_path, set_attributes, write_header
from cliffsteer.datasets.layout import AXES, WELL_BOUNDARY, Place, frame_places, parameter_places
from cliffsteer.grid import Grid


class ShardWriter:
    """Writes one shard; a context manager. Until it ends without an error no file of that name appears or changes.

    Args:
        path: file to write.
        header: what it will hold.

    Raises:
        ValueError: fields, grid or parameters that do not fit each other.
        OSError: the disk is full or the folder cannot be written; nothing is left behind.

    Example:
        >>> with ShardWriter(path, header) as writer:  # doctest: +SKIP
        ...     writer.append(frames)
    """

    def __init__(self, path: str | Path, header: Header):
        if header.grid.dim != header.spec.algebra.dim:
            raise ValueError(
                f"`grid` has {header.grid.dim} axes, but the fields live on {header.spec.algebra}: one axis per basis"
                " vector."
            )
        self.header = header
        self.n_written = 0
        self.sha256: str | None = None
        self._places = frame_places(header.spec)
        scalars = _scalars(header)
        self._file = AtomicFile(path)
        try:
            with uninterrupted():
                # The bounds fix the bytes whatever the library's defaults are; any HDF5 since 1.10 reads them.
                self._hdf5 = h5py.File(self._file, "w", libver=("v110", "v110"))
                self._datasets = _write_skeleton(self._hdf5, header, self._places, scalars)
            self._file.check()
        except BaseException:
            self._abort()
            raise

    def append(self, frames: Tensor) -> None:
        """Append frames (trajectory, time, blade, *grid) of all trajectories; stored as float32.

        Raises:
            ValueError: a shape that does not fit the header, or more frames than it promised.
            OSError: no space left.
        """
        self.header.spec.check_frames(frames)
        start, stop = self.n_written, self.n_written + frames.shape[1]
        if (frames.shape[0], *frames.shape[3:]) != (self.header.n_trajectories, *self.header.grid.shape):
            raise ValueError(
                f"`frames` has shape {tuple(frames.shape)}, expected {self.header.n_trajectories} trajectories on the"
                f" grid {self.header.grid.shape}."
            )
        if stop > self.header.n_frames:
            raise ValueError(f"`frames` makes {stop} frames, but the header promises {self.header.n_frames}.")
        array = frames.detach().to("cpu", torch.float32).numpy()
        with uninterrupted():
            for place, dataset in zip(self._places, self._datasets, strict=True):
                parts = [
                    array[:, :, b] if s > 0 else -array[:, :, b] for b, s in zip(place.blades, place.signs, strict=True)
                ]
                dataset[:, start:stop] = np.stack(parts, -1) if place.vector else parts[0]
            self.n_written = stop
        self._file.check()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._abort()

    def _finish(self) -> None:
        if self.n_written != self.header.n_frames:
            raise ValueError(f"{self.n_written} frames were written, but the header promises {self.header.n_frames}.")
        self._close()
        self.sha256 = self._file.seal()
        # The checksum comes first: a shard that is there always has one beside it.
        write_bytes(checksum_path(self._file.path), f"{self.sha256}  {self._file.path.name}\n".encode())
        self._file.publish()

    def _abort(self) -> None:
        self._close()
        self._file.abort()

    def _close(self) -> None:
        with uninterrupted():
            self._datasets = []
            if getattr(self, "_hdf5", None):
                self._hdf5.close()


def _write_skeleton(
    file: h5py.File, header: Header, places: Sequence[Place], scalars: Sequence[tuple[Place, np.ndarray]]
) -> list[h5py.Dataset]:
    well = {
        "dataset_name": header.solver,
        "grid_type": "cartesian",
        "n_spatial_dims": header.grid.dim,
        "n_trajectories": header.n_trajectories,
    }
    numbers = {
        name: float(value)
        for name, value in header.options.items()
        if type(value) in (int, float) and name not in (*well, "simulation_parameters")
    }
    set_attributes(file, **well, simulation_parameters=sorted(numbers), **numbers)
    write_header(file.create_group(GROUP), header)
    _write_dimensions(file, header)
    _write_boundaries(file.create_group("boundary_conditions"), header.grid)
    group = file.create_group("scalars")
    set_attributes(group, field_names=[place.name for place, _ in scalars])
    for place, values in scalars:
        dataset = group.create_dataset(place.name, data=values, track_times=False)
        set_attributes(dataset, sample_varying=True, time_varying=False, **_origin(place))
    for name in ("t0_fields", "t1_fields", "t2_fields"):
        set_attributes(file.create_group(name), field_names=[place.name for place in places if place.group == name])
    return [_create_dataset(file[place.group], place, header) for place in places]


def _create_dataset(group: h5py.Group, place: Place, header: Header) -> h5py.Dataset:
    frame = (*header.grid.shape, *((len(place.blades),) * place.vector))
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # lays the frames of a trajectory out one after another
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    shape = (header.n_trajectories, header.n_frames, *frame)
    dataset = group.create_dataset(
        place.name, shape=shape, dtype="<f4", chunks=(1, 1, *frame), dcpl=creation, track_times=False
    )
    dim_varying = [True] * header.grid.dim
    set_attributes(dataset, dim_varying=dim_varying, sample_varying=True, time_varying=True, **_origin(place))
    return dataset


def _origin(place: Place) -> dict[str, Any]:
    return {
        "field": place.field.name,
        "grade": place.field.grade,
        "unit": place.field.unit,
        "components": list(place.labels),
    }


def _write_dimensions(file: h5py.File, header: Header) -> None:
    group, grid = file.create_group("dimensions"), header.grid
    names = AXES[: grid.dim]
    set_attributes(group, spatial_dims=list(names))
    time = header.start + header.dt * np.arange(header.n_frames)
    axes = [(np.arange(n) + 0.5) * h for n, h in zip(grid.shape, grid.spacing, strict=True)]
    units = (header.time_unit, *grid.unit)
    for name, values, unit in zip(("time", *names), (time, *axes), units, strict=True):
        dataset = group.create_dataset(name, data=values.astype("<f4"), track_times=False)
        set_attributes(dataset, sample_varying=False, unit=unit)
        if name != "time":
            set_attributes(dataset, time_varying=False)


def _write_boundaries(group: h5py.Group, grid: Grid) -> None:
    for axis, sides in enumerate(grid.boundary):
        for kind in sorted(set(sides)):
            part = group.create_group(f"{AXES[axis]}_{kind}")
            set_attributes(part, associated_dims=[AXES[axis]], associated_fields=[], bc_type=WELL_BOUNDARY[kind])
            set_attributes(part, kind=kind, sample_varying=False, time_varying=False)
            mask = np.zeros(grid.shape[axis], bool)
            for side, place in zip(sides, (0, -1), strict=True):
                mask[place] |= side == kind
            part.create_dataset("mask", data=mask, track_times=False)
            part.create_dataset("values", data=np.zeros(mask.sum(), "<f4"), track_times=False)


def _scalars(header: Header) -> list[tuple[Place, np.ndarray]]:
    packed = header.packed_parameters().numpy()
    return [(place, packed[:, place.blades[0]].astype("<f4")) for place in parameter_places(header.spec)]
