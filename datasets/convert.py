"""Data of other projects to shards of cliffsteer, with the fields that a mapping declares, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import cliffsteer
from cliffsteer.datasets import pdearena, pdebench, well
from cliffsteer.datasets.card import CARD, may_write_card, write_card
from cliffsteer.datasets.files import sha256
from cliffsteer.datasets.folder import begin, compare_versions, finish, locked, make_folder, require_space, sweep
from cliffsteer.datasets.foreign import ForeignFile, find_files
from cliffsteer.datasets.manifest import FILE, Manifest, ShardEntry, check_shard, read_manifest
from cliffsteer.datasets.mapping import FieldMapping
from cliffsteer.datasets.progress import progress_bar
from cliffsteer.datasets.recipe import Recipe, check_file_name, file_name
from cliffsteer.datasets.software import packages
from cliffsteer.datasets.windows import TrajectoryDataset
from cliffsteer.datasets.writer import ShardWriter
from cliffsteer.suggestions import question

FORMATS = {"well": well, "pdearena": pdearena, "pdebench": pdebench}
"""Modules with ``read(path)`` and ``write(trajectories, mapping, folder)``."""
_BLOCK = 8  # frames read at once


@dataclass(frozen=True)
class Settings:
    """What foreign files do not say, or say wrongly.

    Args:
        signature: signs of the metric, one for each axis; all + by default.
        split: where trajectories go that do not say whether they are for training, validation or test.
        batch: trajectories of one shard.
        dt, spacing, boundary: time step, cell size and boundary, as for `Grid`; those of the files by default.
        unit, time_unit: of spacing and dt.
        name: name of the dataset, which exported files begin with; that of the data by default.
    """

    signature: Sequence[int] | None = None
    split: str = "train"
    batch: int = 4
    dt: float | None = None
    spacing: Any = None
    boundary: Any = None
    unit: Any = "m"
    time_unit: str = "s"
    name: str | None = None


@dataclass(frozen=True)
class _Piece:
    """Trajectories of one item of a file that become one shard."""

    path: Path
    item: int
    trajectories: range
    entry: ShardEntry


def import_dataset(
    source: str | Path,
    format: str,
    mapping: Mapping[str, Any],
    out: str | Path,
    settings: Settings | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Path:
    """Make a dataset of foreign files, or finish one that an interruption left unfinished.

    Args:
        source: an HDF5 file, or a folder of them.
        format: "well", "pdearena" or "pdebench".
        mapping: which variables are which fields (``mapping.FieldMapping``).
        out: folder of the dataset.
        settings: what the files do not say.
        progress: show a bar.
        command: the command line that does it, for the data card.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: no files.
        ValueError: files of another format or unlike each other, a mapping that does not fit them, something missing,
            NaN or infinite values, or a folder that holds a dataset of other files, by their checksums.
        OSError: no space left.
    """
    settings = settings or Settings()
    reader, root = _module(format), Path(out)
    planned, pieces = _survey(Path(source), format, mapping, settings)
    make_folder(root)
    with locked(root):
        manifest = begin(root, planned)
        entries = {entry.file: entry for of_split in manifest.shards.values() for entry in of_split}
        if [(e.file, e.trajectories) for e in entries.values()] != [
            (p.entry.file, p.entry.trajectories) for p in pieces
        ]:
            raise ValueError(
                f"`out` (={root}) holds a dataset of other files: give another folder, or remove this one."
            )
        missing = [piece for piece in pieces if check_shard(root, manifest, entries[piece.entry.file])]
        if missing:
            compare_versions(root, manifest, planned)
        require_space(root, manifest, [piece.entry for piece in missing])
        total, left = (sum(len(p.trajectories) * manifest.recipe.frames for p in part) for part in (pieces, missing))
        declared = FieldMapping(mapping, manifest.spec.algebra.signature)
        try:
            with progress_bar(progress and bool(missing), f"convert {format}", total - left, total) as show:
                done = 0
                for piece in missing:
                    for frames in _write_shard(root, manifest, piece, reader, declared):
                        done += frames
                        show(done)
        finally:
            sweep(root, manifest)
        finish(root, manifest, [entries[piece.entry.file] for piece in missing])
        if may_write_card(root) and (missing or not (root / CARD).is_file()):
            write_card(root, command=command or f"cliffsteer convert format={format} source=... mapping=... out=...")
    return root


def export_dataset(
    root: str | Path, format: str, out: str | Path, mapping: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a dataset in the layout of another project: a file for each split, or a folder for The Well.

    Args:
        root: folder of the dataset.
        format: "well", "pdearena" or "pdebench".
        out: a folder; made if it is not there.
        mapping: names of the arrays (``mapping.FieldMapping``); those of the fields by default.

    Returns:
        What was written.

    Raises:
        FileNotFoundError, ValueError: there is no finished dataset, the mapping does not fit it, or ``out`` is one.
        OSError: no space left.
    """
    writer, manifest = _module(format), read_manifest(root)
    spec = manifest.spec
    check_file_name("name", manifest.recipe.solver)
    if (Path(out) / FILE).is_file():
        raise ValueError(
            f"`out` (={out}) holds a dataset of cliffsteer: give another folder for the files made of one."
        )
    own = {f.name: {"grade": f.grade, "role": f.role} for f in spec.fields}
    declared = FieldMapping(mapping or own, spec.algebra.signature)
    declared.check_fields(spec)
    splits = [TrajectoryDataset(root, split) for split in manifest.shards]
    make_folder(Path(out))
    return [writer.write(trajectories, declared, Path(out)) for trajectories in splits]


# ---------------------------------------------------------------------------------------------------- private


def _module(format: str) -> ModuleType:
    if format not in FORMATS:
        raise ValueError(f"`format` (={format!r}) must be one of {', '.join(FORMATS)}.{question(format, FORMATS)}")
    return FORMATS[format]


def _survey(source: Path, format: str, mapping: Any, settings: Settings) -> tuple[Manifest, list[_Piece]]:
    """What will be made, and from what: all files are opened, none is read."""
    manifest: Manifest | None = None
    shards: dict[str, list[_Piece]] = {}
    if settings.name is not None:
        check_file_name("name", settings.name)
    options, files = {"format": format, "mapping": mapping}, find_files(source)
    for path in files:
        for item, file in enumerate(_module(format).read(path)):
            declared = FieldMapping(mapping, settings.signature or [1] * len(file.shape))
            declared.check(file)
            found = _describe(file, declared, options, settings)
            if manifest is None:
                manifest = found
            _require_same(path, manifest, found)
            split = file.split or settings.split
            _cut(path, item, file.n_trajectories, split, settings.batch, shards.setdefault(split, []))
    assert manifest is not None  # there is a file, and a reader finds something in it or raises
    splits = {split: pieces[-1].entry.trajectories[1] for split, pieces in shards.items()}
    options["source"] = _identity(source, files)  # last, as it takes longest
    recipe = replace(manifest.recipe, splits=splits, options=options)
    entries = {split: tuple(piece.entry for piece in pieces) for split, pieces in shards.items()}
    made = replace(manifest, recipe=recipe, options=recipe.options, shards=entries)
    return made, [piece for pieces in shards.values() for piece in pieces]


def _identity(source: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What tells a source from others of its name: size and checksum of each file, over all of its bytes.

    A value mended in place changes neither the size nor the ends of an HDF5 file.
    """
    names = [path.relative_to(source if source.is_dir() else source.parent).as_posix() for path in files]
    found = {
        name: {"size": path.stat().st_size, "sha256": sha256(path)} for name, path in zip(names, files, strict=True)
    }
    return {"name": source.name, "files": found}


def _describe(file: ForeignFile, declared: FieldMapping, options: dict[str, Any], settings: Settings) -> Manifest:
    dt = file.dt if settings.dt is None else settings.dt
    if dt is None:
        raise ValueError(f"`dt` is missing: {file.path} does not say it, so give it as dt=...")
    if not dt > 0:
        raise ValueError(f"`dt` (={dt}) must be positive.")
    recipe = Recipe(settings.name or file_name(file.name), options, {"train": 1}, file.n_frames, batch=settings.batch)
    return Manifest(
        recipe=recipe,
        options=recipe.options,
        spec=declared.spec,
        grid=file.grid(settings.spacing, settings.boundary, settings.unit),
        dt=float(dt),
        time_unit=settings.time_unit,
        software=cliffsteer.__version__,
        shards={},
        verb="convert",
        packages=packages(),
    )


def _require_same(path: Path, first: Manifest, found: Manifest) -> None:
    pairs = {
        "grid": (first.grid, found.grid),
        "time step": (first.dt, found.dt),
        "number of frames": (first.recipe.frames, found.recipe.frames),
    }
    for name, (expected, other) in pairs.items():
        if name == "time step" and abs(other - expected) <= 1e-3 * expected:
            continue
        if expected != other:
            raise ValueError(
                f"{path} has another {name} than the files before it, {other} instead of {expected}: a dataset has one;"
                " convert such files separately."
            )


def _cut(path: Path, item: int, n: int, split: str, batch: int, pieces: list[_Piece]) -> None:
    """Append the pieces of a file to those of its split."""
    for start in range(0, n, batch):
        which = range(start, min(start + batch, n))
        first = pieces[-1].entry.trajectories[1] if pieces else 0
        numbers = range(first, first + len(which))
        entry = ShardEntry(f"{split}/shard_{len(pieces):05d}.hdf5", (numbers.start, numbers.stop), tuple(numbers))
        pieces.append(_Piece(path, item, which, entry))


def _write_shard(
    root: Path, manifest: Manifest, piece: _Piece, reader: ModuleType, mapping: FieldMapping
) -> Iterator[int]:
    """Write one shard; yields the number of frames as they are written."""
    with contextlib.closing(reader.read(piece.path)) as items:
        file = next(found for number, found in enumerate(items) if number == piece.item)
        parameters = mapping.parameters(file, piece.trajectories)
        with ShardWriter(root / piece.entry.file, manifest.header(piece.entry.seeds, parameters)) as writer:
            for start in range(0, file.n_frames, _BLOCK):
                stop = min(start + _BLOCK, file.n_frames)
                read = [mapping.read(file, manifest.grid, i, start, stop).float() for i in piece.trajectories]
                for i, frames in zip(piece.trajectories, read, strict=True):
                    if not bool(torch.isfinite(frames).all()):
                        raise ValueError(
                            f"{piece.path} holds NaN or infinite values in trajectory {i} between frames {start} and"
                            f" {stop}: mend or remove the trajectory first."
                        )
                writer.append(torch.stack(read))
                yield len(read) * (stop - start)
