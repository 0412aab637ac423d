"""Files of other projects, seen alike: named variables and constants of trajectories on a grid, read frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cliffsteer.grid import Grid

SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class Variable:
    """One array of a file.

    Args:
        components: numbers at each point.
        read: (trajectory, start, stop) -> array (time, component, *grid).
    """

    components: int
    read: Callable[[int, int, int], np.ndarray]


@dataclass(frozen=True)
class ForeignFile:
    """What a reader finds in a file, or in one split of it; it can be read while the file is open.

    Args:
        path: the file.
        name: name of the data, for people.
        n_trajectories, n_frames: what the names say.
        shape: cells along each axis.
        variables: arrays by name.
        constants: numbers that belong to a trajectory, by name, (trajectory, component).
        split: "train", "valid" or "test" where file or folder say so.
        dt, spacing, boundary: as for `Grid`; None where the file does not say.
    """

    path: Path
    name: str
    n_trajectories: int
    n_frames: int
    shape: tuple[int, ...]
    variables: dict[str, Variable]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    split: str | None = None
    dt: float | None = None
    spacing: tuple[float, ...] | None = None
    boundary: Any = None

    def listed(self) -> str:
        """Its variables and constants, for a sentence."""
        variables = [
            f"{name} ({v.components} component{'s' * (v.components > 1)})" for name, v in self.variables.items()
        ]
        constants = [f"{name} (constant)" for name in self.constants]
        return ", ".join([*variables, *constants])

    def grid(self, spacing: Any = None, boundary: Any = None, unit: Any = "m") -> Grid:
        """The grid, with what the file does not say.

        Raises:
            ValueError: spacing or boundary are neither in the file nor given.
        """
        found = {"spacing": self.spacing if spacing is None else spacing}
        found["boundary"] = self.boundary if boundary is None else boundary
        for name, value in found.items():
            if value is None:
                raise ValueError(f"`{name}` is missing: {self.path} does not say it, so give it as {name}=...")
        return Grid(self.shape, found["spacing"], found["boundary"], unit)


def find_files(source: str | Path) -> list[Path]:
    """The HDF5 files of a path: itself, or those in the folder and below, in order.

    Raises:
        FileNotFoundError: there are none.
    """
    source = Path(source)
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"`source` (={source}) is no file, and no folder with files {' or '.join(SUFFIXES)}.")
    return files


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        ValueError: it is no HDF5, or damaged.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is truncated, damaged or not HDF5 ({error}).") from error


def uniform_step(path: Path, name: str, values: np.ndarray) -> float | None:
    """The step of equidistant coordinates; None of a single one.

    Raises:
        ValueError: the steps differ by more than a thousandth.
    """
    steps = np.diff(np.asarray(values, np.float64))
    if not len(steps):
        return None
    step = float(steps.mean())
    if not step > 0 or np.abs(steps - step).max() > 1e-3 * step:
        raise ValueError(
            f"{path} has coordinates {name} that are not equidistant: {name} = {np.asarray(values)[:4]}..."
        )
    return step


def same_everywhere(path: Path, name: str, values: np.ndarray) -> float:
    """The one number that an array holds for all trajectories.

    Raises:
        ValueError: they differ.
    """
    values = np.asarray(values, np.float64).ravel()
    if np.ptp(values) > 1e-6 * np.abs(values).max():
        raise ValueError(f"{path} has trajectories of different {name}: a dataset has one grid and one time step.")
    return float(values[0])
