"""Manifest: ``dataset.json``, which says what a dataset holds and what each of its shards must be.

It is written when generation begins, without checksums, and again when it ends, with them; nothing in it depends on the
number of workers, on restarts or on the clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cliffsteer
from cliffsteer.datasets.files import sha256, write_bytes
from cliffsteer.datasets.format import FORMAT_VERSION, Header, checksum_path
from cliffsteer.datasets.recipe import Recipe, differences, trajectory_seed
from cliffsteer.datasets.shard import Shard
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid

FILE = "dataset.json"


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a split.

    Args:
        file: its path inside the dataset, e.g. "train/shard_00000.hdf5".
        trajectories: which of the split's trajectories it holds, first and one past the last.
        seeds: seed of each of them.
        sha256, size: checksum and size in bytes, None until generation has ended.
    """

    file: str
    trajectories: tuple[int, int]
    seeds: tuple[int, ...]
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a dataset is.

    Args:
        recipe: what was asked for.
        options: the solver's options, its defaults included.
        spec, grid: fields and grid of the frames.
        dt, time_unit: time between frames.
        software: version of cliffsteer that began the dataset.
        shards: the shards of each split, in order.
    """

    recipe: Recipe
    options: dict[str, Any]
    spec: FieldSpec
    grid: Grid
    dt: float
    time_unit: str
    software: str
    shards: dict[str, tuple[ShardEntry, ...]]

    @property
    def complete(self) -> bool:
        """Whether generation has ended."""
        return all(entry.sha256 for entries in self.shards.values() for entry in entries)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``Manifest.from_dict`` reads it back."""
        splits = {split: [vars(entry) for entry in entries] for split, entries in self.shards.items()}
        return {
            "format": "cliffsteer dataset",
            "format_version": FORMAT_VERSION,
            "software": self.software,
            "complete": self.complete,
            "recipe": self.recipe.to_dict(),
            "solver_options": self.options,
            "spec": self.spec.to_dict(),
            "grid": self.grid.to_dict(),
            "dt": self.dt,
            "time_unit": self.time_unit,
            "frames": self.recipe.frames,
            "shards": splits,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Manifest:
        """The manifest that ``to_dict`` described."""
        shards = {
            split: tuple(
                ShardEntry(e["file"], tuple(e["trajectories"]), tuple(e["seeds"]), e["sha256"], e["size"])
                for e in entries
            )
            for split, entries in data["shards"].items()
        }
        recipe, options = Recipe.from_dict(data["recipe"]), data["solver_options"]
        spec, grid = FieldSpec.from_dict(data["spec"]), Grid.from_dict(data["grid"])
        return cls(recipe, options, spec, grid, data["dt"], data["time_unit"], data["software"], shards)

    def write(self, root: Path) -> None:
        """Write ``dataset.json`` safely."""
        write_bytes(root / FILE, (json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n").encode())

    def header(self, entry: ShardEntry, parameters: dict[str, list[list[float]]]) -> Header:
        """Header of one shard, given the parameters of its trajectories."""
        return Header(
            spec=self.spec,
            grid=self.grid,
            dt=self.dt,
            n_frames=self.recipe.frames,
            seeds=entry.seeds,
            parameters=parameters,
            solver=self.recipe.solver,
            options=self.options,
            recipe=self.recipe.to_dict(),
            start=self.recipe.skip * self.dt,
            time_unit=self.time_unit,
            software=cliffsteer.__version__,
        )


def plan_shards(recipe: Recipe) -> dict[str, tuple[ShardEntry, ...]]:
    """The shards that a recipe makes, without checksums."""
    shards: dict[str, tuple[ShardEntry, ...]] = dict.fromkeys(recipe.splits, ())
    for split, number, which in recipe.shards():
        seeds = tuple(trajectory_seed(recipe.seed, split, i) for i in which)
        entry = ShardEntry(f"{split}/shard_{number:05d}.hdf5", (which.start, which.stop), seeds)
        shards[split] = (*shards[split], entry)
    return shards


def read_manifest(root: str | Path) -> Manifest:
    """Read the manifest of a dataset.

    Raises:
        FileNotFoundError: the folder is none or holds no dataset.
        ValueError: ``dataset.json`` is damaged or of another version.
    """
    path = Path(root) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no dataset in {Path(root)} ({FILE} is missing): make one with `cliffsteer generate`."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["format_version"]
        manifest = Manifest.from_dict(data) if version == FORMAT_VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): restore it, or remove the dataset and generate it anew."
        ) from error
    if manifest is None:
        raise ValueError(
            f"{path} has format version {version}, this cliffsteer reads {FORMAT_VERSION}: use the cliffsteer that"
            " wrote it, or generate the dataset anew."
        )
    return manifest


def verify(root: str | Path) -> list[str]:
    """Compare every shard of a dataset with its manifest, byte for byte by checksum.

    Returns:
        One sentence for each problem; empty when all is well.

    Raises:
        FileNotFoundError, ValueError: there is no dataset, or its manifest cannot be read.
    """
    root, manifest = Path(root), read_manifest(root)
    entries = [entry for split in manifest.shards.values() for entry in split]
    problems = [problem for entry in entries if (problem := check_shard(root, manifest, entry))]
    known = {entry.file for entry in entries}
    for split in manifest.shards:
        files = sorted(path.relative_to(root).as_posix() for path in (root / split).glob("*.hdf5"))
        problems += [f"{root / file} does not belong to the dataset: remove it." for file in files if file not in known]
    if not manifest.complete:
        problems.append(f"{root} is unfinished: run the same `cliffsteer generate` again.")
    return problems


def check_shard(root: Path, manifest: Manifest, entry: ShardEntry) -> str | None:
    """What is wrong with a shard, in one sentence, or None; a checksum beside it counts more than the manifest's."""
    path = root / entry.file
    if not path.is_file():
        return f"{path} is missing: run the same `cliffsteer generate` again."
    recorded = recorded_checksum(path)
    expected = recorded or entry.sha256
    if expected is None:
        return f"{path} has no checksum: run the same `cliffsteer generate` again."
    if not recorded and path.stat().st_size != entry.size:
        return (
            f"{path} has {path.stat().st_size} bytes instead of {entry.size}, so it is truncated or altered: run the"
            " same `cliffsteer generate` again."
        )
    if sha256(path) != expected:
        return f"{path} differs from its checksum, so it was altered: run the same `cliffsteer generate` again."
    try:
        header = Shard(path, manifest.spec, manifest.grid).header
    except ValueError as error:
        return str(error)
    if header.seeds != entry.seeds or differences(header.recipe, manifest.recipe.to_dict()):
        return f"{path} comes from another recipe: remove it and run the same `cliffsteer generate` again."
    return None


def recorded_checksum(shard: Path) -> str | None:
    """The checksum beside a shard, or None."""
    path = checksum_path(shard)
    words = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return words[0] if words else None
