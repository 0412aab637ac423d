"""Trainings and evaluations of a study, some at once, each with its log; those that are finished are kept."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ASKED = "overrides.json"
"""In the folder of a run: what it was asked for."""


@dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    folder: Path
    train: tuple[str, ...]
    evaluate: tuple[str, ...]


def wanted(run: Run) -> list[str]:
    """Overrides of its training, but for the places of files: a study may be moved."""
    return [word for word in run.train if not word.startswith(("out=", "data.root="))]


def finished(run: Run) -> bool:
    """Whether it is trained and evaluated.

    Raises:
        SystemExit: the folder holds a run of other overrides.
    """
    asked, begun = run.folder / ASKED, (run.folder / "checkpoints").is_dir()
    done = (run.folder / "metrics.json").is_file()
    if (begun or done) and asked.is_file() and json.loads(asked.read_text(encoding="utf-8")) != wanted(run):
        sys.exit(f"{run.folder} holds a run of other overrides ({asked.name}): remove it, or give another --out.")
    return done


def start_worker(threads: int | None) -> None:
    """Let this process compute on so many threads, and end when the one that started it does."""
    import torch

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)


def do(run: Run) -> str:
    """Train and evaluate in this process, with what they say in the run's log; the run's name.

    Raises:
        RuntimeError: one of them failed.
    """
    from cliffsteer.cli import main

    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / ASKED).write_text(json.dumps(wanted(run), indent=2), encoding="utf-8")
    log = run.folder / "log.txt"
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        for words in (["train", *run.train], ["evaluate", f"run={run.folder}", *run.evaluate]):
            if main(words):
                raise RuntimeError(f"{run.folder.name}: `cliffsteer {words[0]}` failed, see {log}.")
    return run.folder.name


def run_all(runs: Sequence[Run], jobs: int) -> list[str]:
    """Do the runs that are not done, ``jobs`` at once; what went wrong."""
    todo = [run for run in runs if not finished(run)]
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them done", flush=True)
    failures = []
    workers = {
        "mp_context": multiprocessing.get_context("spawn"),
        "initializer": start_worker,
        "initargs": (1 if jobs > 1 else None,),
    }
    with ProcessPoolExecutor(jobs, **workers) as pool:
        futures = [pool.submit(do, run) for run in todo]
        try:
            for count, future in enumerate(as_completed(futures), 1):
                error = future.exception()
                failures += [str(error)] if error else []
                print(f"{count} of {len(todo)}: {error or future.result()}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failures
