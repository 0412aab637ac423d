"""Loading windows of a dataset in random order: `WindowDataset` against plain h5py, through the same DataLoader.

    python benchmarks/loading.py [--resolution 64] [--trajectories 64] [--frames 40] [--workers 0 1 2]
                                 [--repeats 3] [--out FILE]

The peers read the same windows of the same files, opened once in each process, in the same order. "plain h5py" slices
each field's array and packs nothing: what is left to a training loop there is to make multivectors of the fields.
"plain h5py, packed" does that as well, by numpy, so that both end in the same tensors. Every run is measured in turns
with its peers and repeated; times are minima. What lies in the page cache is not read from the disk, for none of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from measuring import machine, write_results
from torch.utils.data import DataLoader, Dataset

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets import Recipe, TrajectoryDataset, WindowDataset
from cliffsteer.datasets.folder import begin, finish
from cliffsteer.datasets.manifest import Manifest, plan_shards
from cliffsteer.datasets.writer import ShardWriter

HISTORY, FUTURE, BATCH = 4, 1, 16


@dataclass
class Result:
    """What was measured: windows per second, and how much faster than plain h5py."""

    reader: str
    workers: int
    resolution: int
    windows_per_s: float
    megabytes_per_s: float
    ratio: float = float("nan")


def make_data(root: Path, resolution: int, trajectories: int, frames: int) -> None:
    """A dataset of noise with a scalar, a vector and a pseudoscalar on a plane."""
    spec = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s"), Field("vorticity", 2, "1/s")])
    recipe = Recipe("noise", {}, {"train": trajectories}, frames=frames, batch=4)
    planned = Manifest(recipe, {}, spec, Grid((resolution, resolution)), 1.0, "s", "benchmark", plan_shards(recipe))
    root.mkdir(parents=True)
    manifest = begin(root, planned)
    generator = torch.Generator().manual_seed(0)
    for entry in manifest.shards["train"]:
        with ShardWriter(root / entry.file, manifest.header(entry.seeds, {})) as writer:
            shape = (len(entry.seeds), frames, spec.n_blades, resolution, resolution)
            writer.append(torch.randn(shape, generator=generator))
    finish(root, manifest, manifest.shards["train"])


class Plain(Dataset):
    """The same windows by h5py alone: an array for each field."""

    def __init__(self, windows: WindowDataset, packed: bool):
        self.windows, self.packed = windows, packed
        self.root, entries = windows.trajectories.root, windows.trajectories.manifest.shards["train"]
        self.entries = [(entry.file, entry.trajectories[0]) for entry in entries]
        self.per_file = entries[0].trajectories[1]
        self.open: dict[str, list[h5py.Dataset]] = {}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int):
        trajectory, start = self.windows.locate(index)
        name, first = self.entries[trajectory // self.per_file]
        if name not in self.open:
            file = h5py.File(self.root / name, "r")
            self.open[name] = [
                file[path] for path in ("t0_fields/density", "t1_fields/velocity", "t0_fields/vorticity")
            ]
        part = (trajectory - first, slice(start, start + HISTORY + FUTURE))
        scalar, vector, top = (dataset[part] for dataset in self.open[name])
        if not self.packed:
            return scalar, vector, top
        frames = np.concatenate([scalar[:, None], np.moveaxis(vector, -1, 1), top[:, None]], 1)
        return torch.from_numpy(frames[:HISTORY]), torch.from_numpy(frames[HISTORY:])

    def __getstate__(self):
        return {**self.__dict__, "open": {}}


def seconds(dataset: Dataset, workers: int) -> float:
    """One pass over all windows in random order, the start of the workers left out."""
    loader = DataLoader(
        dataset,
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
    )
    for _ in loader:  # starts the workers, opens the files and fills the page cache
        pass
    began = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - began


def main() -> None:
    """Run, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--trajectories", type=int, default=64)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("loading.csv"))
    args = parser.parse_args()
    least = {"resolution": 1, "trajectories": 1, "frames": HISTORY + FUTURE, "repeats": 1}
    for name, value in least.items():
        if getattr(args, name) < value:
            parser.error(f"--{name} (={getattr(args, name)}) must be at least {value}.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_data(root, args.resolution, args.trajectories, args.frames)
        windows = WindowDataset(TrajectoryDataset(root, "train"), HISTORY, FUTURE)
        peers = {
            "plain h5py": Plain(windows, packed=False),
            "plain h5py, packed": Plain(windows, packed=True),
            "cliffsteer": windows,
        }
        size = (HISTORY + FUTURE) * 4 * 4 * args.resolution**2 / 1e6
        for workers in args.workers:
            times: dict[str, list[float]] = {name: [] for name in peers}
            for _ in range(args.repeats):
                for name, dataset in peers.items():
                    times[name].append(seconds(dataset, workers))
            best = {name: min(each) for name, each in times.items()}
            for name, took in best.items():
                rate = len(windows) / took
                ratio = best["plain h5py"] / took
                results.append(Result(name, workers, args.resolution, rate, rate * size, ratio))
                print(
                    f"{name:20s} {workers} workers: {rate:8.0f} windows/s, {rate * size:7.0f} MB/s,"
                    f" {ratio:.2f} times plain h5py",
                    flush=True,
                )
    write_results(args.out, results, machine(1) | {"h5py": h5py.__version__})


if __name__ == "__main__":
    main()
