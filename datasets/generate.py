"""generate: simulate the trajectories of a recipe and store them as shards.

Each shard holds one batch of trajectories of one split and is made by one process, on one thread, from the seeds of its
trajectories alone; so the bytes depend neither on the number of workers nor on interruptions. Frames go to the disk as
they are simulated. Shards that are already there and sound are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cliffsteer
from cliffsteer import solvers
from cliffsteer.datasets.files import remove_temporaries
from cliffsteer.datasets.format import checksum_path
from cliffsteer.datasets.manifest import (
    FILE,
    Manifest,
    ShardEntry,
    check_shard,
    plan_shards,
    read_manifest,
    recorded_checksum,
)
from cliffsteer.datasets.pool import Tick, run_tasks
from cliffsteer.datasets.recipe import Recipe, differences, plain
from cliffsteer.datasets.writer import ShardWriter

logger = logging.getLogger(__name__)


def generate(recipe: Recipe, out: str | Path, workers: int = 1, progress: bool = True) -> Path:
    """Make a dataset, or finish one that an interruption left unfinished.

    Args:
        recipe: what to simulate.
        out: folder of the dataset: ``out/<split>/shard_00000.hdf5``, ... and ``out/dataset.json``.
        workers: processes that simulate, each on one thread; 1 simulates in this process. More than one starts new
            Python processes, so a script that calls this needs its ``if __name__ == "__main__":``.
        progress: show a bar with rate and remaining time.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown solver or option, a folder that holds something else, another process at work in it, or
            a simulation that became NaN or infinite.
        OSError: no space left, or the folder cannot be written. What was finished is kept.
    """
    if workers < 1:
        raise ValueError(f"`workers` (={workers}) must be at least 1.")
    root = Path(out)
    solver = solvers.create(recipe.solver, **recipe.options)
    planned = _plan(recipe, solver)
    _make_folder(root)
    with _locked(root):
        _SOLVERS.clear()
        manifest = _begin(root, planned)
        entries = [entry for split in manifest.shards.values() for entry in split]
        missing = [entry for entry in entries if check_shard(root, manifest, entry)]
        _require_space(root, manifest, missing)
        logger.info("%s: %d of %d shards are there", root, len(entries) - len(missing), len(entries))
        steps = {entry: len(entry.seeds) * (recipe.frames + recipe.skip) for entry in entries}
        done = sum(steps.values()) - sum(steps[entry] for entry in missing)
        with _progress_bar(progress and bool(missing), recipe.solver, done, sum(steps.values())) as show:
            tasks = [(root, manifest, entry, type(solver).__module__) for entry in missing]
            try:
                run_tasks(make_shard, tasks, workers, lambda count: show(done + count))
            except BaseException:  # Ctrl-C can fall between the making of a file and the care for it
                for split in manifest.shards:
                    remove_temporaries(root / split)
                raise
        _finish(root, manifest, entries)
    return root


def make_shard(task: tuple[Path, Manifest, ShardEntry, str], tick: Tick) -> None:
    """Simulate one shard and write it.

    Args:
        task: folder of the dataset, its manifest, the shard, and the module that registers the solver.
        tick: called with the number of frames simulated since the last call; may raise to stop.
    """
    root, manifest, entry, module = task
    recipe = manifest.recipe
    solver = _solver(recipe, module)
    where = f"Solver {recipe.solver!r} with seeds {list(entry.seeds)}"
    with _simulating(where, 0):
        state = solver.initial(entry.seeds)
        packed = manifest.spec.pack_parameters(state.parameters, len(entry.seeds), torch.float64)
    parameters = {name: value.tolist() for name, value in manifest.spec.unpack_parameters(packed).items()}
    with ShardWriter(root / entry.file, manifest.header(entry, parameters)) as writer:
        for frame in range(recipe.skip + recipe.frames):
            step = frame * recipe.every
            with _simulating(where, step):
                for _ in range(recipe.every if frame else 0):
                    state = solver.advance(state)
                frames = solver.observe(state).to(torch.float32) if frame >= recipe.skip else None
            if frames is not None:
                _require_finite(frames, manifest, entry, step)
                writer.append(frames)
            tick(len(entry.seeds))


# ------------------------------------------------------------------------------------------- before and after


def _plan(recipe: Recipe, solver: solvers.Solver) -> Manifest:
    defaults = {
        name: p.default
        for name, p in inspect.signature(type(solver)).parameters.items()
        if p.default is not inspect.Parameter.empty
    }
    options = {name: _described(name, value) for name, value in {**defaults, **recipe.options}.items()}
    return Manifest(
        recipe=recipe,
        options=options,
        spec=solver.spec,
        grid=solver.grid,
        dt=solver.dt * recipe.every,
        time_unit=getattr(solver, "time_unit", "s"),
        software=cliffsteer.__version__,
        shards=plan_shards(recipe),
    )


def _described(name: str, value: Any) -> Any:
    try:
        return plain(name, value)
    except ValueError:  # a default that is no JSON value
        return repr(value)


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Cannot make the folder {root} ({error.strerror}): choose another `out`.") from error


def _begin(root: Path, planned: Manifest) -> Manifest:
    """The manifest to work by: the one that is there if it is of the same recipe, else the planned one, written."""
    if not (root / FILE).is_file():
        visible = [path for path in root.iterdir() if not path.name.startswith(".")]
        strangers = [path.name for path in visible if path.name not in planned.shards]
        strangers += [path.name for path in root.glob("*/*.hdf5")]
        if strangers:
            raise ValueError(f"`out` (={root}) holds {min(strangers)} but no {FILE}: give an empty folder.")
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
    remove_temporaries(root)
    for split in manifest.shards:
        _make_folder(root / split)
        remove_temporaries(root / split)
    if not manifest.complete:
        manifest.write(root)
    return manifest


def _finish(root: Path, manifest: Manifest, entries: Sequence[ShardEntry]) -> None:
    """Move the checksums of all shards into the manifest."""
    shards = {
        split: tuple(
            replace(
                entry,
                sha256=recorded_checksum(root / entry.file) or entry.sha256,
                size=(root / entry.file).stat().st_size,
            )
            for entry in of_split
        )
        for split, of_split in manifest.shards.items()
    }
    finished = replace(manifest, shards=shards)
    if finished != manifest:
        finished.write(root)
    for entry in entries:
        checksum_path(root / entry.file).unlink(missing_ok=True)


def _require_space(root: Path, manifest: Manifest, missing: Sequence[ShardEntry]) -> None:
    cells = 1
    for n in manifest.grid.shape:
        cells *= n
    frame = 4 * cells * int(manifest.spec.occupied.sum())
    needed = frame * manifest.recipe.frames * sum(len(entry.seeds) for entry in missing)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            f"No space for the dataset: {needed / 1e9:.1f} GB are still to be written to {root}, where"
            f" {free / 1e9:.1f} GB are free; free some or choose another `out`."
        )


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it however the process ends."""
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


# ---------------------------------------------------------------------------------------------- simulation

_SOLVERS: dict[str, Any] = {}


def _solver(recipe: Recipe, module: str) -> solvers.Solver:
    """The solver of a recipe, made once in each process."""
    key = repr((recipe.solver, recipe.options))
    if key not in _SOLVERS:
        if module not in ("__main__", "__mp_main__"):
            __import__(module)  # so that solvers registered by a decorator are known in new processes as well
        _SOLVERS.clear()
        _SOLVERS[key] = solvers.create(recipe.solver, **recipe.options)
    return _SOLVERS[key]


@contextlib.contextmanager
def _simulating(where: str, step: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{where} failed by step {step}: {error}") from error
    except Exception as error:  # a solver may raise anything, and not all of it passes between processes
        raise RuntimeError(f"{where} failed by step {step}: {error!r}") from error


def _require_finite(frames: Tensor, manifest: Manifest, entry: ShardEntry, step: int) -> None:
    if math.isfinite(frames.sum()):  # one cheap pass; only a sum that is not finite is worth a closer look
        return
    bad = ~torch.isfinite(frames).flatten(1).all(1)
    if bool(bad.any()):
        which = int(bad.nonzero()[0])
        raise ValueError(
            f"Solver {manifest.recipe.solver!r} made NaN or infinite values by step {step} of the trajectory with seed"
            f" {entry.seeds[which]} (trajectory {entry.trajectories[0] + which} of {entry.file}): try a smaller time"
            " step or other options."
        )


@contextlib.contextmanager
def _progress_bar(enabled: bool, name: str, done: int, total: int) -> Iterator[Any]:
    if not enabled:
        yield lambda completed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        def render(self, task):
            return super().render(task) if task.speed is None else f"{task.speed:.1f} frames/s"

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate("- frames/s"))
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(f"generate {name}", completed=done, total=total)
        yield lambda completed: bar.update(task, completed=completed)
