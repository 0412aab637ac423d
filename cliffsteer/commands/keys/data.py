"""The keys of the verbs that make datasets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cliffsteer.training.config import MISSING


@dataclass
class Generate:
    """``cliffsteer generate``.

    Args:
        solver: its name, and its options beside it.
        n: trajectories in all, an eighth each for valid and test (at least one), the rest for train; overrides splits.
        splits: trajectories of each split.
        frames: frames stored of each trajectory.
        every: solver steps between two of them.
        skip: frames dropped at the start of each trajectory.
        batch: trajectories simulated together, which make one shard.
        seed: of the dataset; every trajectory draws from its own seed, derived from it.
        out: folder of the dataset.
        workers: processes; their number does not change a byte.
        launcher: "local" for processes of this machine, "dask" for the workers of a Dask cluster.
        scheduler: address of a running Dask scheduler, e.g. tcp://node01:8786; without one a cluster of ``workers``
            processes is started on this machine.
        retries: seeds tried for a trajectory after its first one diverged.
        card: write the data card, README.md in the folder.
        progress: show a progress bar.
    """

    solver: dict[str, Any] = field(default_factory=dict)
    n: int | None = None
    splits: dict[str, int] = field(default_factory=dict)
    frames: int = MISSING
    every: int = 1
    skip: int = 0
    batch: int = 4
    seed: int = 0
    out: str = MISSING
    workers: int = 1
    launcher: str = "local"
    scheduler: str | None = None
    retries: int = 3
    card: bool = True
    progress: bool = True


@dataclass
class Convert:
    """``cliffsteer convert``.

    Args:
        source: an HDF5 file or a folder of them, of the format; or a dataset of cliffsteer, to be written in it.
        format: "well", "pdearena" or "pdebench".
        mapping: which variables are which fields, as in {velocity:vector,pressure:scalar}, or a YAML file of that;
            optional when a dataset of cliffsteer is the source.
        out: folder of what is made.
        signature: signs of the metric, one for each axis; all + by default.
        split: where trajectories go that do not say whether they are for training, validation or test.
        batch: trajectories of one shard.
        dt: time between frames; that of the files by default, like spacing and boundary.
        spacing: size of a cell, one number or one for each axis.
        boundary: kind of boundary, one for all sides or one for each axis.
        unit: of the spacing.
        time_unit: of dt.
        name: name of the dataset; that of the data by default.
        progress: show a progress bar.
    """

    source: str = MISSING
    format: str = MISSING
    mapping: Any = None
    out: str = MISSING
    signature: list[int] | None = None
    split: str = "train"
    batch: int = 4
    dt: float | None = None
    spacing: Any = None
    boundary: Any = None
    unit: Any = "m"
    time_unit: str = "s"
    name: str | None = None
    progress: bool = True
