"""Manifest: ``dataset.json``, which says what a dataset holds and what each of its shards must be.

It is written when generation begins, without checksums, and again when it ends, with them; nothing in it depends on the
number of workers, on restarts or on the clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        replaced: the seeds that diverged and were given up, as in ``Header.replaced``.
    """

    file: str
    trajectories: tuple[int, int]
    seeds: tuple[int, ...]
    sha256: str | None = None
    size: int | None = None
    replaced: tuple[dict[str, Any], ...] = field(default=(), hash=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``replaced`` is left out when it is empty."""
        return {name: value for name, value in vars(self).items() if name != "replaced" or value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ShardEntry:
        """The entry that ``to_dict`` described."""
        trajectories, seeds, replaced = (tuple(data.get(name, ())) for name in ("trajectories", "seeds", "replaced"))
        return cls(data["file"], trajectories, seeds, data["sha256"], data["size"], replaced)


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
        failures: for each shard that could not be made, why, in a sentence; only of the last, failed generation.
        verb: the verb of ``cliffsteer`` that makes it, "generate" or "convert".
        packages: versions of the other packages that began it, those that decide the bytes, by name.
    """

    recipe: Recipe
    options: dict[str, Any]
    spec: FieldSpec
    grid: Grid
    dt: float
    time_unit: str
    software: str
    shards: dict[str, tuple[ShardEntry, ...]]
    failures: dict[str, str] = field(default_factory=dict)
    verb: str = "generate"
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether generation has ended."""
        return all(entry.sha256 for entries in self.shards.values() for entry in entries)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of cliffsteer and of the packages that began it, by name."""
        return {"cliffsteer": self.software, **self.packages}

    @property
    def start(self) -> float:
        """Time of the first frame."""
        return self.recipe.skip * self.dt

    @property
    def again(self) -> str:
        """How to mend it, the end of a sentence."""
        return f"run the same `cliffsteer {self.verb}` again"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``Manifest.from_dict`` reads it back."""
        splits = {split: [entry.to_dict() for entry in entries] for split, entries in self.shards.items()}
        return {
            "format": "cliffsteer dataset",
            "format_version": FORMAT_VERSION,
            "software": self.software,
            **({"packages": self.packages} if self.packages else {}),
            "complete": self.complete,
            "recipe": self.recipe.to_dict(),
            "solver_options": self.options,
            "spec": self.spec.to_dict(),
            "grid": self.grid.to_dict(),
            "dt": self.dt,
            "time_unit": self.time_unit,
            "frames": self.recipe.frames,
            "shards": splits,
            **({"failures": self.failures} if self.failures else {}),
            **({"verb": self.verb} if self.verb != "generate" else {}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Manifest:
        """The manifest that ``to_dict`` described."""
        shards = {split: tuple(map(ShardEntry.from_dict, entries)) for split, entries in data["shards"].items()}
        recipe, options = Recipe.from_dict(data["recipe"]), data["solver_options"]
        spec, grid = FieldSpec.from_dict(data["spec"]), Grid.from_dict(data["grid"])
        dt, time_unit, software = data["dt"], data["time_unit"], data["software"]
        more = data.get("failures", {}), data.get("verb", "generate"), data.get("packages", {})
        return cls(recipe, options, spec, grid, dt, time_unit, software, shards, *more)

    def write(self, root: Path) -> None:
        """Write ``dataset.json`` safely."""
        write_bytes(root / FILE, (json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n").encode())

    def header(
        self,
        seeds: Sequence[int],
        parameters: dict[str, list[list[float]]],
        replaced: Sequence[Mapping[str, Any]] = (),
    ) -> Header:
        """Header of one shard, given seeds and parameters of its trajectories and the seeds that were given up."""
        return Header(
            spec=self.spec,
            grid=self.grid,
            dt=self.dt,
            n_frames=self.recipe.frames,
            seeds=tuple(seeds),
            parameters=parameters,
            solver=self.recipe.solver,
            options=self.options,
            recipe=self.recipe.to_dict(),
            start=self.start,
            time_unit=self.time_unit,
            software=cliffsteer.__version__,
            replaced=tuple(dict(note) for note in replaced),
        )


def plan_shards(recipe: Recipe) -> dict[str, tuple[ShardEntry, ...]]:
    """The shards that a recipe makes, without checksums."""
    shards: dict[str, list[ShardEntry]] = {split: [] for split in recipe.splits}
    for split, number, which in recipe.shards():
        seeds = tuple(trajectory_seed(recipe.seed, split, i) for i in which)
        shards[split].append(ShardEntry(f"{split}/shard_{number:05d}.hdf5", (which.start, which.stop), seeds))
    return {split: tuple(entries) for split, entries in shards.items()}


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
    unmade = {file for file in manifest.failures if not (root / file).is_file()}  # their sentence comes below
    sound = (check_shard(root, manifest, entry) for entry in entries if entry.file not in unmade)
    problems = [problem for problem in sound if problem]
    known = {entry.file for entry in entries}
    for split in manifest.shards:
        files = sorted(path.relative_to(root).as_posix() for path in (root / split).glob("*.hdf5"))
        problems += [f"{root / file} does not belong to the dataset: remove it." for file in files if file not in known]
    problems += manifest.failures.values()
    if not manifest.complete:
        more = " with more `retries`" if manifest.failures else ""
        problems.append(f"{root} is unfinished: {manifest.again}{more}.")
    return problems


def check_shard(root: Path, manifest: Manifest, entry: ShardEntry) -> str | None:
    """What is wrong with a shard, in one sentence, or None; a checksum beside it counts until the manifest has one."""
    path = root / entry.file
    if not path.is_file():
        return f"{path} is missing: {manifest.again}."
    expected = entry.sha256 or recorded_checksum(path)
    if expected is None:
        return f"{path} has no checksum: {manifest.again}."
    if entry.size is not None and path.stat().st_size != entry.size:
        return (
            f"{path} has {path.stat().st_size} bytes instead of {entry.size}, so it is truncated or altered:"
            f" {manifest.again}."
        )
    if sha256(path) != expected:
        return f"{path} differs from its checksum, so it was altered: {manifest.again}."
    try:
        header = Shard(path, manifest.spec, manifest.grid).header
    except ValueError as error:
        return str(error)
    seeds = (entry.seeds, _seeds(manifest.recipe, entry, header.replaced))
    if header.seeds not in seeds or differences(header.recipe, manifest.recipe.to_dict()):
        return f"{path} comes from another recipe: remove it and {manifest.again}."
    return None


def _seeds(recipe: Recipe, entry: ShardEntry, replaced: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Seeds of a shard's trajectories after those that were replaced."""
    attempts = Counter(note["trajectory"] for note in replaced)
    split = entry.file.partition("/")[0]
    return tuple(trajectory_seed(recipe.seed, split, i, attempts[i]) for i in range(*entry.trajectories))


def recorded_checksum(shard: Path) -> str | None:
    """The checksum beside a shard, or None."""
    path = checksum_path(shard)
    words = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return words[0] if words else None
