"""The folder of a dataset while it is made: locked, begun from a manifest or gone on with, finished with checksums."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cliffsteer.datasets.files import remove_temporaries
from cliffsteer.datasets.format import checksum_path
from cliffsteer.datasets.manifest import FILE, Manifest, ShardEntry, read_manifest, recorded_checksum
from cliffsteer.datasets.recipe import differences
from cliffsteer.datasets.shard import Shard

logger = logging.getLogger(__name__)


def make_folder(root: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OSError: it cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Cannot make the folder {root} ({error.strerror}): choose another `out`.") from error


def begin(root: Path, planned: Manifest) -> Manifest:
    """The manifest to work by: the one that is there if it is of the same recipe, else the planned one, written.

    Raises:
        ValueError: the folder holds something else, or a dataset of another recipe.
    """
    if not (root / FILE).is_file():
        strangers = sorted(path.name for path in root.glob("*/*.hdf5"))
        visible = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
        strangers += [name for name in visible if name not in planned.shards]
        if strangers:
            raise ValueError(f"`out` (={root}) holds {strangers[0]} but no {FILE}: give an empty folder.")
        manifest = planned
    else:
        manifest = read_manifest(root)
        different = differences(manifest.recipe.to_dict(), planned.recipe.to_dict())
        if not different:  # by another version of the solver
            shared = manifest.options.keys() & planned.options.keys()
            sides = [
                {"dt": m.dt, "spec": m.spec.to_dict(), "grid": m.grid.to_dict(), **{k: m.options[k] for k in shared}}
                for m in (manifest, planned)
            ]
            different = differences(*sides)
        if different:
            more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
            raise ValueError(
                f"`out` (={root}) holds a dataset of another recipe: {'; '.join(different[:3])}{more}; give another"
                " folder, or remove this one."
            )
    for split in manifest.shards:
        make_folder(root / split)
    sweep(root, manifest)
    if not manifest.complete:
        manifest.write(root)
    return manifest


def compare_versions(root: Path, manifest: Manifest, planned: Manifest) -> None:
    """Warn when the packages that began a dataset had other versions than those that go on with it."""
    began, now = manifest.versions, planned.versions
    other = [
        f"{name} {began[name]} there, {now[name]} here" for name in began if now.get(name, began[name]) != began[name]
    ]
    if other:
        logger.warning("%s was begun with other versions (%s): new shards may differ from it.", root, "; ".join(other))


def finish(root: Path, manifest: Manifest, made: Sequence[ShardEntry]) -> Manifest:
    """Move the checksums of the shards that were made, and their notes of seeds given up, into the manifest.

    A shard that was made again, to other bytes than the manifest says, takes its place with a warning.
    """
    new = set(made)
    shards = {
        split: tuple(_finished(root, manifest, entry, entry in new) for entry in of_split)
        for split, of_split in manifest.shards.items()
    }
    finished = replace(manifest, shards=shards, failures={})
    if finished != manifest:
        finished.write(root)
    for entries in shards.values():
        for entry in entries:
            checksum_path(root / entry.file).unlink(missing_ok=True)
    return finished


def _finished(root: Path, manifest: Manifest, entry: ShardEntry, made: bool) -> ShardEntry:
    path = root / entry.file
    shard = Shard(path, manifest.spec, manifest.grid)
    header = shard.header
    shard.close()
    recorded = recorded_checksum(path)
    checksum = recorded if recorded and (made or entry.sha256 is None) else entry.sha256
    if entry.sha256 not in (None, checksum):
        logger.warning(
            "%s was made again, but with other bytes than before (sha256 %s, now %s): other versions, another"
            " processor or a solver that is not deterministic.",
            path,
            entry.sha256,
            checksum,
        )
    return replace(entry, seeds=header.seeds, sha256=checksum, size=path.stat().st_size, replaced=header.replaced)


def require_space(root: Path, manifest: Manifest, missing: Sequence[ShardEntry]) -> None:
    """Raise an OSError when the disk cannot hold the shards that are missing."""
    frame = 4 * math.prod(manifest.grid.shape) * int(manifest.spec.occupied.sum())
    needed = frame * manifest.recipe.frames * sum(len(entry.seeds) for entry in missing)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            f"No space for the dataset: {_bytes(needed)} are still to be written to {root}, where {_bytes(free)} are"
            " free; free some or choose another `out`."
        )


def _bytes(n: int) -> str:
    """A size for a sentence, in a unit that shows it."""
    unit, name = next(((u, name) for u, name in ((1e9, "GB"), (1e6, "MB")) if n >= u), (1e3, "kB"))
    return f"{n / unit:.1f} {name}"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it however the process ends.

    Raises:
        ValueError: another process holds it.
    """
    fd = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"`out` (={root}) is being generated by another process: wait for it, or give another folder."
            ) from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): do not generate into it twice at once", root, error.strerror)
        yield
    finally:
        os.close(fd)


def sweep(root: Path, manifest: Manifest) -> None:
    """Remove what dead processes left under temporary names."""
    remove_temporaries(root)
    for split in manifest.shards:
        if (root / split).is_dir():
            remove_temporaries(root / split)
