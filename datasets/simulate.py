"""Simulating one shard: one batch of trajectories of one split, frame by frame to the disk.

It runs in one process, on one thread, from the seeds of its trajectories alone. A trajectory that becomes NaN or
infinite, or that the solver says to be unstable (``UnstableError``), is given up: the shard starts again with the next
seed of that trajectory, a fixed function of the recipe, and its header keeps a note of the seed given up, of the step
by which it had diverged and of what the solver said. Whatever else a solver refuses after its first step fails the
shard, and the others are made.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliffsteer import solvers
from cliffsteer.datasets.manifest import FILE, Manifest, ShardEntry
from cliffsteer.datasets.pool import Tick
from cliffsteer.datasets.recipe import Recipe, trajectory_seed
from cliffsteer.datasets.software import check_versions
from cliffsteer.datasets.writer import ShardWriter


@dataclass(frozen=True)
class Job:
    """One shard to make.

    Args:
        root: folder of the dataset.
        manifest: what the dataset is; of its shards only this one is needed.
        entry: the shard.
        versions: of the software of the process that asks for it, by name.
        module: the module that registers the solver.
        retries: seeds tried for a trajectory after its first one diverged.
    """

    root: Path
    manifest: Manifest
    entry: ShardEntry
    versions: Mapping[str, str]
    module: str
    retries: int


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        file: path of the shard inside the dataset.
        seconds: time it took.
        replaced: the seeds given up, as in ``Header.replaced``.
        failure: why there is no shard, in one sentence; None when there is one.
    """

    file: str
    seconds: float
    replaced: tuple[Mapping[str, Any], ...] = ()
    failure: str | None = None


class DivergedError(Exception):
    """Trajectories of a batch became NaN, infinite or unstable: which ones, by which step, and the solver's reason."""

    def __init__(self, which: Sequence[int], step: int, reason: str = ""):
        super().__init__(which, step, reason)
        self.which, self.step, self.reason = which, step, reason


class RefusedError(Exception):
    """The solver refused a state after its first step; one sentence."""


def make_shard(job: Job, tick: Tick) -> Outcome:
    """Simulate one shard and write it.

    Args:
        job: which one.
        tick: called with the number of frames simulated since the last call, negative when a shard starts again; may
            raise to stop.

    Raises:
        ValueError: the solver refuses its options or the initial state, or this process does not see the dataset's
            folder or has other versions of what decides the bytes.
        RuntimeError: the solver raised anything else.
        OSError: no space left.
    """
    if not (job.root / FILE).is_file():
        raise ValueError(f"`out` (={job.root}) is not there for a worker: it must be a folder that all workers share.")
    recipe, entry, began = job.manifest.recipe, job.entry, time.perf_counter()
    split, solver = entry.file.partition("/")[0], _solver(job.manifest.recipe, job.module)
    check_versions(job.versions, solver)
    seeds = [trajectory_seed(recipe.seed, split, i) for i in range(*entry.trajectories)]
    replaced: list[dict[str, Any]] = []
    while True:
        counted = 0

        def count(amount: int) -> None:
            nonlocal counted
            counted += amount
            tick(amount)

        try:
            _simulate(solver, job, tuple(seeds), tuple(replaced), count)
            return Outcome(entry.file, time.perf_counter() - began, tuple(replaced))
        except DivergedError as error:
            tick(-counted)
            for i in error.which:
                number = entry.trajectories[0] + i
                attempt = 1 + sum(note["trajectory"] == number for note in replaced)
                if attempt > job.retries:
                    others = f", and so did {attempt - 1} seed(s) before it" if attempt > 1 else ""
                    told = _told(recipe.solver, entry.file, number, seeds[i], error.step, bool(error.reason))
                    failure = f"{told}{others}: try a smaller time step, other options or more `retries`."
                    failure += f" The solver says: {error.reason}" if error.reason else ""
                    return Outcome(entry.file, time.perf_counter() - began, tuple(replaced), failure)
                note = {"trajectory": number, "seed": seeds[i], "step": error.step}
                replaced.append(note | ({"reason": error.reason} if error.reason else {}))
                seeds[i] = trajectory_seed(recipe.seed, split, number, attempt)
        except RefusedError as error:
            tick(-counted)
            return Outcome(entry.file, time.perf_counter() - began, tuple(replaced), str(error))


def _simulate(
    solver: solvers.Solver, job: Job, seeds: tuple[int, ...], replaced: tuple[Mapping[str, Any], ...], tick: Tick
) -> None:
    manifest, recipe = job.manifest, job.manifest.recipe
    where = f"Solver {recipe.solver!r} with seeds {list(seeds)} ({job.entry.file})"
    with _simulating(where, 0):
        state = solver.initial(seeds)
        packed = manifest.spec.pack_parameters(state.parameters, len(seeds), torch.float64)
    parameters = {name: value.tolist() for name, value in manifest.spec.unpack_parameters(packed).items()}
    header = manifest.header(seeds, parameters, replaced)
    with ShardWriter(job.root / job.entry.file, header) as writer:
        for frame in range(recipe.skip + recipe.frames):
            step = frame * recipe.every
            with _simulating(where, step):
                for _ in range(recipe.every if frame else 0):
                    state = solver.advance(state)
                frames = solver.observe(state).to(torch.float32) if frame >= recipe.skip else None
            if frames is not None:
                _require_finite(frames, step)
                writer.append(frames)
            tick(len(seeds))


def diverged(solver: str, file: str, trajectory: int, seed: int, step: int, reason: str = "") -> str:
    """The beginning of a sentence about a trajectory that was given up, with the solver's reason where it has one."""
    told = _told(solver, file, trajectory, seed, step, bool(reason))
    return f"{told}: {reason.rstrip('.')}" if reason else told


def _told(solver: str, file: str, trajectory: int, seed: int, step: int, unstable: bool) -> str:
    return (
        f"Solver {solver!r} made {'an unstable state' if unstable else 'NaN or infinite values'} by step {step} of the"
        f" trajectory with seed {seed} (trajectory {trajectory} of {file})"
    )


def forget_solvers() -> None:
    """Forget the solver that this process made last, so that the next shard makes it anew."""
    _SOLVERS.clear()


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
        if isinstance(error, solvers.UnstableError) and error.which:
            raise DivergedError(error.which, step, str(error)) from error
        sentence = f"{where} failed by step {step}: {error}"
        # what is refused at first is refused in every shard
        raise (RefusedError if step and isinstance(error, ValueError) else ValueError)(sentence) from error
    except Exception as error:  # a solver may raise anything, and not all of it passes between processes
        raise RuntimeError(f"{where} failed by step {step}: {error!r}") from error


def _require_finite(frames: Tensor, step: int) -> None:
    if math.isfinite(frames.sum()):  # one cheap pass; only a sum that is not finite is worth a closer look
        return
    bad = ~torch.isfinite(frames).flatten(1).all(1)
    if bool(bad.any()):
        raise DivergedError(bad.nonzero().flatten().tolist(), step)
