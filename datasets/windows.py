"""TrajectoryDataset and WindowDataset: reading trajectories of a split, and enumerated windows of them for training."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cliffsteer.datasets.files import sha256
from cliffsteer.datasets.manifest import read_manifest
from cliffsteer.datasets.shard import Shard
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid

_MAX_OPEN = 64  # shards held open at once


class TrajectoryDataset:
    """The trajectories of one split, read from the disk frame by frame as asked.

    It can be pickled and forked: each process opens the files for itself.

    Args:
        root: folder of the dataset.
        split: one of its splits.
        first: how many of its trajectories, the first of them; None for all.

    Attributes:
        root, split: the same.
        manifest: what the dataset is.
        spec, grid: fields and grid of the frames.
        dt: time between frames.
        n_trajectories, n_frames: number of trajectories, and of frames of each.
        seeds: seed of each trajectory.

    Raises:
        FileNotFoundError: there is no dataset, or a shard is missing.
        ValueError: an unknown split, an unfinished dataset, a shard that is truncated, or fewer trajectories than asked
            for.
    """

    def __init__(self, root: str | Path, split: str, first: int | None = None):
        self.root, self.split = Path(root), split
        self.manifest = read_manifest(root)
        if split not in self.manifest.shards:
            known = ", ".join(repr(name) for name in self.manifest.shards)
            raise ValueError(f"`split` (={split!r}) is not in {self.root}: choose from {known}.")
        if not self.manifest.complete:
            raise ValueError(f"{self.root} is unfinished: {self.manifest.again} to finish it.")
        self.spec: FieldSpec = self.manifest.spec
        self.grid: Grid = self.manifest.grid
        self.dt: float = self.manifest.dt
        self.n_frames: int = self.manifest.recipe.frames
        entries = self.manifest.shards[split]
        seeds = tuple(seed for entry in entries for seed in entry.seeds)
        if first is not None and not 1 <= first <= len(seeds):
            raise ValueError(f"{first} trajectories of {self.root} were asked for: split {split!r} has {len(seeds)}.")
        self.seeds = seeds[:first]
        self.n_trajectories = len(self.seeds)
        self._starts = [entry.trajectories[0] for entry in entries]
        self._paths = [self.root / entry.file for entry in entries]
        for path, entry in zip(self._paths, entries, strict=True):
            _check_size(path, entry.size, self.manifest.again)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        return self.n_trajectories

    @cached_property
    def parameters(self) -> Tensor:
        """Parameters of all trajectories as multivectors, shape (trajectory, blade), float32."""
        found = torch.cat([self._shard(i).header.packed_parameters() for i in range(len(self._paths))])
        return found[: self.n_trajectories]

    def read(self, trajectory: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Frames start..stop of a trajectory, shape (time, blade, *grid), float32.

        Raises:
            ValueError: the frames are out of range, the file is damaged, or it holds NaN or infinite values.
        """
        stop = self.n_frames if stop is None else stop
        if not (0 <= trajectory < self.n_trajectories and 0 <= start < stop <= self.n_frames):
            raise ValueError(
                f"Frames {start}..{stop} of trajectory {trajectory} are out of range: split {self.split!r} has"
                f" {self.n_trajectories} trajectories of {self.n_frames} frames."
            )
        number = bisect_right(self._starts, trajectory) - 1
        frames = self._shard(number).read(trajectory - self._starts[number], start, stop)
        # One pass; only a sum that is not finite is worth a closer look.
        if not math.isfinite(frames.sum()) and not bool(torch.isfinite(frames).all()):
            raise ValueError(
                f"{self._paths[number]} holds NaN or infinite values in trajectory {trajectory} of split"
                f" {self.split!r} between frames {start} and {stop}: check it with `cliffsteer.datasets.verify`."
            )
        return frames

    def close(self) -> None:
        """Close all files; they open again when used."""
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __repr__(self) -> str:
        return f"TrajectoryDataset({str(self.root)!r}, {self.split!r}): {self.n_trajectories} of {self.n_frames} frames"

    def _shard(self, number: int) -> Shard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[number] = Shard(self._paths[number], self.spec, self.grid)
        return self._open[number]


class WindowDataset(Dataset):
    """Windows of (history, future) frames, enumerated: trajectory by trajectory, each from its first frame on.

    Args:
        trajectories: one split of a dataset.
        history: frames that a model reads.
        future: frames that follow them.
        stride: frames from the start of one window to that of the next.

    Raises:
        ValueError: a number below 1, or trajectories shorter than a window.
    """

    def __init__(self, trajectories: TrajectoryDataset, history: int, future: int, stride: int = 1):
        for name, value in (("history", history), ("future", future), ("stride", stride)):
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1.")
        if history + future > trajectories.n_frames:
            raise ValueError(
                f"`history` (={history}) and `future` (={future}) need {history + future} frames, but the trajectories"
                f" have {trajectories.n_frames}: take fewer, or generate longer trajectories."
            )
        self.trajectories, self.history, self.future, self.stride = trajectories, history, future, stride
        self.per_trajectory = (trajectories.n_frames - history - future) // stride + 1
        self._parameters = trajectories.parameters

    def __len__(self) -> int:
        return self.trajectories.n_trajectories * self.per_trajectory

    def locate(self, index: int) -> tuple[int, int]:
        """Trajectory and first frame of a window."""
        if not 0 <= index < len(self):
            raise IndexError(f"`index` (={index}) is out of range: there are {len(self)} windows.")
        trajectory, number = divmod(index, self.per_trajectory)
        return trajectory, number * self.stride

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window.

        Returns:
            "history" (history, blade, *grid), "future" (future, blade, *grid) and "parameters" (blade,), float32.
        """
        trajectory, start = self.locate(index)
        frames = self.trajectories.read(trajectory, start, start + self.history + self.future)
        return {
            "history": frames[: self.history],
            "future": frames[self.history :],
            "parameters": self._parameters[trajectory],
        }


_sound: set[tuple[str, int, int]] = set()


def check_shards(trajectories: TrajectoryDataset) -> None:
    """Compare the shards of a split with their checksums, each once in a process: a damaged one must not be used.

    Args:
        trajectories: the split.

    Raises:
        ValueError: a shard whose bytes have changed since it was written.
    """
    for entry in trajectories.manifest.shards[trajectories.split]:
        path = trajectories.root / entry.file
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        if key in _sound:
            continue
        if sha256(path) != entry.sha256:
            raise ValueError(
                f"{path} differs from its checksum in dataset.json, so it was altered or damaged:"
                f" {trajectories.manifest.again}, which makes it anew."
            )
        _sound.add(key)


def _check_size(path: Path, size: int | None, again: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {again}, which makes it anew.")
    if path.stat().st_size != size:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes instead of {size}, so it is truncated or altered: {again}, which"
            " makes it anew."
        )
