"""Shard: reads a shard, lazily, and says in one sentence what is wrong with a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cliffsteer.datasets.direct import first_byte, read_into
from cliffsteer.datasets.format import FORMAT_VERSION, GROUP, GROUPS, Header, read_header
from cliffsteer.datasets.layout import Place, frame_places
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid

_AGAIN = "delete it and run the same `cliffsteer generate` again, which makes only what is missing"


class Shard:
    """Reads a shard; opened when first used, and anew in each process that it is sent or forked to.

    Args:
        path: the file.
        spec, grid: if given, what it must hold.

    Raises:
        FileNotFoundError: no such file (when first used, like the errors below).
        ValueError: it is truncated, no HDF5, not written by cliffsteer, of another version, or of another spec or grid.
    """

    def __init__(self, path: str | Path, spec: FieldSpec | None = None, grid: Grid | None = None):
        self.path = Path(path)
        self._expected = (spec, grid)
        self._forget()

    @property
    def header(self) -> Header:
        """Spec, grid, dt, seeds, parameters and origin."""
        self._open()
        return self._header

    def read(self, trajectory: int, start: int, stop: int) -> Tensor:
        """Frames start..stop of one trajectory, shape (time, blade, *grid), float32.

        Raises:
            ValueError: the window leaves the shard, or the file cannot be read there.
        """
        self._open()
        header = self._header
        if not (0 <= trajectory < header.n_trajectories and 0 <= start < stop <= header.n_frames):
            raise ValueError(
                f"Frames {start}..{stop} of trajectory {trajectory} are not in {self.path}, which holds"
                f" {header.n_trajectories} trajectories of {header.n_frames} frames."
            )
        count = stop - start
        out = torch.empty(count, header.spec.n_blades, *header.grid.shape)
        view = out.numpy()
        for blade in self._empty:
            view[:, blade] = 0
        for place, dataset, first in self._stored:
            blades = view[:, place.blades[0]]
            part = np.empty((count, *dataset.shape[2:]), np.float32) if place.vector else blades
            try:
                if first is None:
                    part[...] = dataset[trajectory, start:stop]
                elif not read_into(
                    self._fd,
                    [part] if place.vector else list(part),
                    first + (trajectory * header.n_frames + start) * (part.nbytes // count),
                ):
                    raise ValueError(f"{self.path} ends before {dataset.name} does, so it is truncated: {_AGAIN}.")
            except OSError as error:
                raise ValueError(f"{self.path} cannot be read at {dataset.name} ({error}): {_AGAIN}.") from error
            if place.vector:
                _unpack(part, place, view)
        return out

    def close(self) -> None:
        """Close the file; it opens again when used."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_expected": self._expected}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._file: h5py.File | None = None
        self._process: int | None = None

    def _open(self) -> None:
        if self._file is not None and self._process == os.getpid():
            return
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no shard {self.path}: run the same `cliffsteer generate` again.")
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(f"{self.path} is truncated, damaged or not HDF5: {_AGAIN}.") from error
        try:
            self._header = self._read_header(file)
            datasets = [(place, self._dataset(file, place)) for place in frame_places(self._header.spec)]
            self._stored = [(place, dataset, first_byte(dataset)) for place, dataset in datasets]
            self._empty = (~self._header.spec.occupied).nonzero().flatten().tolist()
            self._fd = file.id.get_vfd_handle()
        except BaseException:
            file.close()
            raise
        self._file, self._process = file, os.getpid()

    def _read_header(self, file: h5py.File) -> Header:
        missing = [name for name in GROUPS if name not in file]
        if GROUP in missing:
            raise ValueError(f"{self.path} has no group {GROUP!r}: it is HDF5, but not a shard written by cliffsteer.")
        try:
            version = int(file[GROUP].attrs["format_version"])
            header = read_header(file[GROUP].attrs) if version == FORMAT_VERSION and not missing else None
        except Exception as error:  # whatever h5py, json and the types raise on damaged attributes
            raise ValueError(f"{self.path} is damaged ({error!r}): {_AGAIN}.") from error
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{self.path} has format version {version}, this cliffsteer reads {FORMAT_VERSION}: use the cliffsteer"
                " that wrote it, or generate the dataset anew."
            )
        if header is None:
            raise ValueError(f"{self.path} lacks the group {missing[0]!r}, so it is damaged: {_AGAIN}.")
        spec, grid = self._expected
        for name, found, expected in (("fields", header.spec, spec), ("grid", header.grid, grid)):
            if expected is not None and found != expected:
                raise ValueError(
                    f"{self.path} has other {name} than its dataset: {found} instead of {expected}; it belongs"
                    " elsewhere, or the dataset must be generated anew."
                )
        return header

    def _dataset(self, file: h5py.File, place: Place) -> h5py.Dataset:
        header, dataset = self._header, file[place.group].get(place.name)
        shape = (header.n_trajectories, header.n_frames, *header.grid.shape, *((len(place.blades),) * place.vector))
        if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape:
            found = "nothing" if dataset is None else f"shape {getattr(dataset, 'shape', None)}"
            raise ValueError(
                f"{self.path} has {found} at {place.group}/{place.name}, expected shape {shape}: {_AGAIN}."
            )
        return dataset


def _unpack(stored: np.ndarray, place: Place, view: np.ndarray) -> None:
    """Copy the components (time, *grid, component) of a vector to their blades of (time, blade, *grid)."""
    for component, (blade, sign) in enumerate(zip(place.blades, place.signs, strict=True)):
        if sign > 0:
            view[:, blade] = stored[..., component]
        else:
            np.negative(stored[..., component], out=view[:, blade])
