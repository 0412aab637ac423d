"""Datasets: recipes, generation, the shard format, windows and statistics. Installed as cliffsteer.datasets."""

if __name__ != "cliffsteer.datasets":
    raise ImportError("this folder installs as `cliffsteer.datasets`: import that name.")

from cliffsteer.datasets.dask_pool import DaskPool
from cliffsteer.datasets.format import Header
from cliffsteer.datasets.generate import generate
from cliffsteer.datasets.manifest import Manifest, read_manifest, verify
from cliffsteer.datasets.pool import LocalPool
from cliffsteer.datasets.recipe import Recipe, trajectory_seed
from cliffsteer.datasets.shard import Shard
from cliffsteer.datasets.statistics import compute_statistics
from cliffsteer.datasets.windows import TrajectoryDataset, WindowDataset, check_shards
from cliffsteer.datasets.writer import ShardWriter

__all__ = [
    "DaskPool",
    "Header",
    "LocalPool",
    "Manifest",
    "Recipe",
    "Shard",
    "ShardWriter",
    "TrajectoryDataset",
    "WindowDataset",
    "check_shards",
    "compute_statistics",
    "generate",
    "read_manifest",
    "trajectory_seed",
    "verify",
]
