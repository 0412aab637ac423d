"""The data card of a dataset: ``README.md`` beside the manifest, and a picture of some frames.

It says what the data are, by which equation, on which grid and in which units, what is hard about them, how large the
fields are and what the evolution keeps, and how to make the same again. All of it follows from the recipe, the shards
and the installed versions, except the line "Cost", which says how long it took; so neither the card nor its picture has
a checksum in the manifest.
"""

from __future__ import annotations

import inspect
import io
import json
import math
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cliffsteer import solvers
from cliffsteer.datasets.files import write_bytes
from cliffsteer.datasets.manifest import FILE, Manifest, read_manifest
from cliffsteer.datasets.pictures import contact_sheet, shown_slice
from cliffsteer.datasets.recipe import recipe_overrides
from cliffsteer.datasets.summary import Summary, find_solver, summarize
from cliffsteer.datasets.windows import TrajectoryDataset
from cliffsteer.fields import Field

CARD = "README.md"
PICTURE = "frames.png"
MARK = "<!-- Written by cliffsteer; remove this line to keep changes of your own. -->"
"""First line of a card; one without it is left alone."""
_SHOWN = 5  # frames of the picture
_GRADES = ("scalar", "vector", "bivector", "trivector", "quadrivector")


def write_card(root: str | Path, cost: tuple[float, int] | None = None, command: str | None = None) -> Path:
    """Write the data card of a finished dataset; it reads every frame once.

    Args:
        root: folder of the dataset.
        cost: seconds that simulations took, and how many trajectories they were; left out when unknown.
        command: the command line that makes the data; by default that of the recipe.

    Returns:
        The card, ``root/README.md``; its picture is ``root/frames.png``.

    Raises:
        FileNotFoundError, ValueError: there is no finished dataset, or it is damaged.
    """
    root, manifest = Path(root), read_manifest(root)
    solver = find_solver(manifest)
    splits = {split: TrajectoryDataset(root, split) for split in manifest.shards}
    summaries = [summarize(trajectories, solver) for trajectories in splits.values()]
    first = next(iter(splits.values()))
    numbers = sorted({round(i * (first.n_frames - 1) / (_SHOWN - 1)) for i in range(_SHOWN)})
    frames = torch.cat([first.read(0, i, i + 1) for i in numbers])
    times = [f"t = {manifest.start + i * manifest.dt:.4g} {manifest.time_unit}" for i in numbers]
    buffer = io.BytesIO()
    contact_sheet(manifest.spec, frames, times).save(buffer, "PNG", optimize=True)
    write_bytes(root / PICTURE, buffer.getvalue())
    command = command or shlex.join(["cliffsteer", "generate", *recipe_overrides(manifest.recipe)])
    text = card(manifest, solver, summaries, cost, command)
    write_bytes(root / CARD, f"{MARK}\n\n{text}".encode())
    return root / CARD


def may_write_card(root: Path) -> bool:
    """Whether there is no ``README.md``, or one that ``write_card`` wrote and nobody took over."""
    path = root / CARD
    return not path.exists() or path.read_text(encoding="utf-8", errors="replace").startswith(MARK)


def card(
    manifest: Manifest,
    solver: solvers.Solver | None,
    summaries: Sequence[Summary],
    cost: tuple[float, int] | None,
    command: str,
) -> str:
    """The text of the card, in Markdown."""
    recipe, grid = manifest.recipe, manifest.grid
    split = next(iter(manifest.shards))
    elsewhere = f"Made elsewhere, converted from {_source(manifest)}."
    section = shown_slice(grid.shape)
    doc = (inspect.getdoc(type(solver)) or "").partition("\n")[0] if solver else elsewhere
    parts = [
        f"# {recipe.solver}",
        doc,
        f"![Frames]({PICTURE})",
        f"*Trajectory 0 of the split {split}: components of one-component fields, magnitudes of the others, on one"
        f" colour scale per field{section and f'; of the grid the slice {section}'}.*",
    ]
    if method := system(solver):
        parts += ["## System", method]
    if difficulty := getattr(solver, "difficulty", ""):
        parts += ["## What is hard about it", difficulty]
    rows = [
        (f.name, _grade(manifest, f), manifest.spec.slots[f.name].size, f.unit, f.role) for f in manifest.spec.fields
    ]
    signature = ", ".join("+" if sign > 0 else "-" for sign in manifest.spec.algebra.signature)
    parts += ["## Fields", f"Multivector fields; signs of the axes: {signature}."]
    parts += [_table(("field", "grade", "components", "unit", "role"), rows)]
    axes = zip("xyzw", grid.shape, grid.spacing, grid.extent, grid.unit, grid.boundary, strict=False)
    rows = [(a, n, f"{h:.6g} {u}", f"{e:.6g} {u}", " / ".join(dict.fromkeys(sides))) for a, n, h, e, u, sides in axes]
    parts += ["## Grid and time", _table(("axis", "cells", "spacing", "length", "boundary"), rows)]
    parts += [
        f"Values live at cell centres, as float32. {recipe.frames} frames a trajectory, {manifest.dt:.6g}"
        f" {manifest.time_unit} apart, the first at t = {manifest.start:.6g} {manifest.time_unit}."
    ]
    parts += ["## Splits", _splits(manifest), _seeds(manifest)]
    parts += ["## Statistics", *_statistics(manifest, summaries), "## What the evolution keeps", _kept(summaries)]
    parts += ["## How to make it again", f"```bash\n{command}\n```"]
    options = {"solver": recipe.solver, **manifest.options}
    parts += [f"Options, with defaults:\n\n```json\n{json.dumps(options, indent=2, sort_keys=True)}\n```"]
    parts += [f"Versions: {versions(manifest)}.", _cost(manifest, cost)]
    parts += [f"`{FILE}` holds the recipe, the seeds and a checksum for each file; `cliffsteer verify` compares them."]
    return "\n\n".join(part for part in parts if part) + "\n"


def system(solver: solvers.Solver | None) -> str:
    """What the solver's docstrings say: that of its module, or of its class when the module has no more than a line."""
    if solver is None:
        return ""
    module = inspect.cleandoc(sys.modules[type(solver).__module__].__doc__ or "")
    own = inspect.getdoc(type(solver)) or ""
    for text in (module, own.partition("\nArgs:")[0]):
        if "\n\n" in text.strip():
            return text.strip().partition("\n\n")[2].strip("\n")  # an equation keeps its indent
    return ""


def versions(manifest: Manifest) -> str:
    """Versions of what makes the bytes."""
    packages = manifest.packages | {name: version(name) for name in ("torch", "numpy", "h5py")}
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    return f"cliffsteer {manifest.software}, Python {platform.python_version()}, {listed}"


# ------------------------------------------------------------------------------------------------------ parts


def _source(manifest: Manifest) -> str:
    """Name of what was converted; datasets made before checksums were kept have it alone."""
    source = manifest.options.get("source", "another solver")
    return source["name"] if isinstance(source, dict) else str(source)


def _grade(manifest: Manifest, f: Field) -> str:
    dim = manifest.spec.algebra.dim
    return f"{f.grade} (pseudoscalar)" if f.grade == dim and dim > 1 else f"{f.grade} ({_GRADES[f.grade]})"


def _splits(manifest: Manifest) -> str:
    rows = []
    for split, entries in manifest.shards.items():
        trajectories = sum(len(entry.seeds) for entry in entries)
        size = sum(entry.size or 0 for entry in entries)
        rows.append((split, trajectories, trajectories * manifest.recipe.frames, len(entries), f"{size / 1e6:.1f} MB"))
    return _table(("split", "trajectories", "frames", "files", "size"), rows)


def _seeds(manifest: Manifest) -> str:
    if manifest.verb == "convert":
        return "Trajectories stand in the order of the files that they come from."
    notes = [note | {"file": e.file} for entries in manifest.shards.values() for e in entries for note in e.replaced]
    told = "\n".join(
        f"- trajectory {note['trajectory']} of {note['file']}: seed {note['seed']} diverged by step {note['step']}"
        + (f" ({note['reason']})" if "reason" in note else "")
        for note in notes
    )
    text = (
        f"The seed of the dataset is {manifest.recipe.seed}. Every trajectory draws from its own seed, a hash of that"
        f" number, its split and its index; `{FILE}` lists them."
    )
    if not notes:
        return text + " No trajectory diverged."
    return text + f" {len(notes)} seed(s) diverged and were replaced by the next ones:\n\n{told}"


def _statistics(manifest: Manifest, summaries: Sequence[Summary]) -> Iterable[str]:
    head = ("split", "field", "unit", "mean", "deviation", "lowest", "highest", "rms", "largest magnitude", "change")
    rows = [
        (
            s.split,
            name,
            manifest.spec[name].unit,
            *map(_number, (f.mean, f.deviation, f.low, f.high, f.rms, f.largest, f.change)),
        )
        for s in summaries
        for name, f in s.fields.items()
    ]
    yield _table(head, rows)
    parameters = [
        (s.split, name, manifest.spec[name].unit, *map(_number, limits))
        for s in summaries
        for name, limits in s.parameters.items()
    ]
    if parameters:
        yield _table(("split", "parameter", "unit", "lowest component", "highest component"), parameters)
    yield "All but the magnitude are over components alike; the change is the RMS from one frame to the next."


def _kept(summaries: Sequence[Summary]) -> str:
    names = list(summaries[0].drifts)
    rows = [(name, *(f"{s.drifts[name][0]:.1e} / {s.drifts[name][1]:.1e}" for s in summaries)) for name in names]
    text = (
        "Mean / largest drift over the trajectories, relative to the largest size that the quantity could have (0: it"
        " is kept, 1: nothing of it is). A total is the sum over cells of a component times the cell's volume, a square"
        " that of |f|². Whether they should be kept, the equations and the boundaries say."
    )
    return f"{text}\n\n{_table(('quantity', *(s.split for s in summaries)), rows)}"


def _cost(manifest: Manifest, cost: tuple[float, int] | None) -> str:
    if manifest.verb == "convert":
        return ""
    recipe, cells = manifest.recipe, math.prod(manifest.grid.shape)
    steps = (recipe.skip + recipe.frames - 1) * recipe.every
    text = f"Cost: {steps} solver steps on {cells} cells for each trajectory"
    if cost is None or not cost[1]:
        return f"{text}; the time was not measured."
    return f"{text}; {cost[0] / cost[1]:.3g} s for each, on one thread, over the last {cost[1]} made."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines])
