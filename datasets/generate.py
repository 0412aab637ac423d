"""generate: simulate the trajectories of a recipe and store them as shards.

Each shard is made by one process, on one thread, from the seeds of its trajectories alone (``simulate``); so the bytes
depend neither on the number of workers nor on interruptions. Frames go to the disk as they are simulated. Shards that
are already there and sound are kept. What ran where and how long stands in the data card alone (``card``).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cliffsteer
from cliffsteer import solvers
from cliffsteer.datasets.card import CARD, may_write_card, write_card
from cliffsteer.datasets.folder import begin, compare_versions, finish, locked, make_folder, require_space, sweep
from cliffsteer.datasets.manifest import FILE, Manifest, ShardEntry, check_shard, plan_shards
from cliffsteer.datasets.pool import LocalPool, Pool
from cliffsteer.datasets.progress import Show, progress_bar
from cliffsteer.datasets.recipe import Recipe, plain
from cliffsteer.datasets.simulate import Job, Outcome, diverged, forget_solvers, make_shard
from cliffsteer.datasets.software import packages
from cliffsteer.solvers.registry import solver_options

logger = logging.getLogger(__name__)

RETRIES = 3
"""Seeds tried for a trajectory after its first one diverged."""
_HOPELESS = 3  # so many failed shards and not one made: the recipe is at fault


def generate(
    recipe: Recipe,
    out: str | Path,
    workers: int = 1,
    progress: bool = True,
    pool: Pool | None = None,
    retries: int = RETRIES,
    card: bool = True,
) -> Path:
    """Make a dataset, or finish one that an interruption left unfinished.

    A trajectory that becomes NaN or infinite is tried again with its next seed, and the seed given up is noted in the
    shard, in ``dataset.json`` and in the data card. When all ``retries`` are used up the shard is recorded as failed in
    ``dataset.json``, the other shards are made, and the generation ends in an error; the same call with more retries
    finishes it. The number of retries does not change the bytes of a finished dataset.

    Args:
        recipe: what to simulate.
        out: folder of the dataset: ``out/<split>/shard_00000.hdf5``, ..., ``out/dataset.json``, and the data card
            ``out/README.md`` with its picture.
        workers: processes that simulate, each on one thread; 1 simulates in this process. More than one starts new
            Python processes, so a script that calls this needs its ``if __name__ == "__main__":``.
        progress: show a bar with rate, remaining time and failures.
        pool: what runs the simulations instead of ``workers`` processes of this machine, such as a ``DaskPool``.
        retries: seeds tried for a trajectory after its first one diverged.
        card: write the data card; it reads the dataset once.

    Returns:
        The folder.

    Raises:
        ValueError: an unknown solver or option, a folder that holds something else, another process at work in it, or
            simulations that became NaN or infinite with every seed.
        OSError: no space left, or the folder cannot be written. What was finished is kept.
    """
    pool = LocalPool(workers) if pool is None else pool
    if retries < 0:
        raise ValueError(f"`retries` (={retries}) must not be negative.")
    root = Path(out)
    solver = solvers.create(recipe.solver, **recipe.options)
    planned = _plan(recipe, solver)
    make_folder(root)
    with locked(root):
        forget_solvers()
        manifest = begin(root, planned)
        entries = [entry for split in manifest.shards.values() for entry in split]
        missing = [entry for entry in entries if check_shard(root, manifest, entry)]
        if missing:
            compare_versions(root, manifest, planned)
        require_space(root, manifest, missing)
        logger.info("%s: %d of %d shards are there", root, len(entries) - len(missing), len(entries))
        steps = {entry: len(entry.seeds) * (recipe.frames + recipe.skip) for entry in entries}
        done = sum(steps.values()) - sum(steps[entry] for entry in missing)
        jobs = [_job(root, manifest, entry, planned.versions, type(solver).__module__, retries) for entry in missing]
        try:
            with progress_bar(
                progress and bool(missing), f"generate {recipe.solver}", done, sum(steps.values())
            ) as show:
                outcomes = _make(pool, jobs, show, len(entries) - len(missing))
        finally:  # of a process that died, or of Ctrl-C between the making of a file and the care for it
            sweep(root, manifest)
        failures = {outcome.file: outcome.failure for outcome in outcomes if outcome.failure}
        if failures:
            replace(manifest, failures=dict(sorted(failures.items()))).write(root)
            more = f" ({len(failures) - 1} more shard(s) failed; {FILE} lists them.)" if len(failures) > 1 else ""
            raise ValueError(f"{min(failures.items())[1]}{more}")
        manifest = finish(root, manifest, missing)
        if card and may_write_card(root) and (missing or not (root / CARD).is_file()):
            write_card(root, _cost(manifest, outcomes))
    return root


def _make(pool: Pool, jobs: Sequence[Job], show: Show, made: int) -> list[Outcome]:
    """Run the jobs; notes of what diverged go to the log as they come."""
    outcomes: list[Outcome] = []
    failed = done = 0

    def tick(count: int) -> None:
        nonlocal done
        done = count
        show(done, failed)

    with contextlib.closing(pool.map_shards(make_shard, jobs, tick)) as results:
        for outcome in results:
            outcomes.append(outcome)
            solver = jobs[0].manifest.recipe.solver
            for note in outcome.replaced:
                logger.warning("%s; another seed took its place.", diverged(solver, outcome.file, **note))
            if outcome.failure:
                failed += 1
                logger.warning("%s", outcome.failure)
            else:
                made += 1
            show(done, failed)
            if failed >= _HOPELESS and not made:
                break
    return outcomes


# ------------------------------------------------------------------------------------------- before and after


def _plan(recipe: Recipe, solver: solvers.Solver) -> Manifest:
    defaults = {name: p.default for name, p in solver_options(type(solver)).items() if p.default is not p.empty}
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
        packages=packages(solver),
    )


def _described(name: str, value: Any) -> Any:
    try:
        return plain(name, value)
    except ValueError:  # a default that is no JSON value
        return repr(value)


def _job(root: Path, manifest: Manifest, entry: ShardEntry, versions: dict[str, str], module: str, retries: int) -> Job:
    """The job of one shard; it carries no other shard's seeds, which would make it long."""
    alone = replace(manifest, shards={entry.file.partition("/")[0]: (entry,)}, failures={})
    return Job(root.absolute(), alone, entry, versions, module, retries)


def _cost(manifest: Manifest, outcomes: Sequence[Outcome]) -> tuple[float, int] | None:
    """Seconds that shards took, and the number of trajectories in them; None when none was made."""
    sizes = {entry.file: len(entry.seeds) for split in manifest.shards.values() for entry in split}
    measured = [(outcome.seconds, sizes[outcome.file]) for outcome in outcomes]
    return (sum(s for s, _ in measured), sum(n for _, n in measured)) if measured else None
