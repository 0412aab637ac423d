"""Running tasks in this process or in several, alike: one thread each, progress counted, stopped without debris.

New processes are spawned, so that nothing of this one's state reaches the result; here the same is had by setting the
number of threads and the default precision aside for the while.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_connections
from typing import Any

import torch

from cliffsteer.datasets.files import uninterrupted

Tick = Callable[[int], None]
"""Called by a task with the amount of work done since its last call; raises when the task is to stop."""

_POLL = 0.2  # seconds between two looks at the progress


class StoppedError(Exception):
    """Raised inside a task of a worker that is to end early."""


def run_tasks(function: Callable[[Any, Tick], None], tasks: Sequence[Any], workers: int, show: Tick) -> None:
    """Run ``function(task, tick)`` for every task.

    Args:
        function: defined at the top of a module, as new processes must find it.
        tasks: arguments; they must be picklable.
        workers: processes; 1 runs the tasks here, one after another.
        show: called now and then with the work done so far, over all tasks.

    Raises:
        The first exception of a task, or KeyboardInterrupt; the other tasks are stopped first, at their next tick.
        ValueError: a worker died.
    """
    if workers == 1 or len(tasks) <= 1:
        with _one_thread():
            _run_here(function, tasks, show)
    else:
        _run_in_workers(function, tasks, min(workers, len(tasks)), show)


def _run_here(function: Callable[[Any, Tick], None], tasks: Sequence[Any], show: Tick) -> None:
    done = 0

    def tick(amount: int) -> None:
        nonlocal done
        done += amount
        show(done)

    for task in tasks:
        function(task, tick)


def _run_in_workers(function: Callable[[Any, Tick], None], tasks: Sequence[Any], workers: int, show: Tick) -> None:
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(workers, context, _begin_worker, (counter, stop)) as pool:
        try:
            with _born_deaf():
                pending: set[Future] = {pool.submit(_run_in_worker, function, task) for task in tasks}
            while pending:
                finished, pending = wait(pending, _POLL, FIRST_COMPLETED)
                show(counter.value)
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "A worker process died: it may have run out of memory (take fewer `workers` or a smaller `batch`), or"
                " the calling script lacks its `if __name__ == '__main__':`; what was finished is kept, so run the same"
                " command again."
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _born_deaf() -> Iterator[None]:
    """Let Ctrl-C wait, and start processes that never hear it: half-imported ones would print tracebacks."""
    with uninterrupted():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


# -------------------------------------------------------------------------------------- inside the workers

_shared: tuple[Any, Any] | None = None


def _begin_worker(counter: Any, stop: Any) -> None:
    global _shared
    _shared = (counter, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us at the next tick
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    wait_connections([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run_in_worker(function: Callable[[Any, Tick], None], task: Any) -> None:
    with _one_thread():
        function(task, _tick)


def _tick(amount: int) -> None:
    counter, stop = _shared
    with counter.get_lock():
        counter.value += amount
    if stop.is_set():
        raise StoppedError
