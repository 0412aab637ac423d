"""LocalPool: shards made in this process or in several, alike: one thread each, progress counted, stopped cleanly.

New processes are spawned, so that nothing of this one's state reaches the result; here the same is had by setting the
number of threads and the default precision aside for the while. ``dask_pool`` has the same interface for many machines.
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
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_connections
from typing import Any, Protocol

import torch

from cliffsteer.datasets.files import uninterrupted

Tick = Callable[[int], None]
"""Called by a job with the amount of work done since its last call; raises when the job is to stop."""

POLL = 0.2
"""Seconds between two looks at the progress."""


class Pool(Protocol):
    """What runs the jobs of a generation."""

    def map_shards(self, function: Callable[[Any, Tick], Any], jobs: Sequence[Any], show: Tick) -> Iterator[Any]:
        """Run ``function(job, tick)`` for every job and yield what it returns, in the order in which jobs end.

        Closing the iterator, like an exception or Ctrl-C, stops the other jobs at their next tick, and waits for it.

        Args:
            function: defined at the top of a module, as new processes must find it.
            jobs: arguments; they must be picklable.
            show: called now and then with the work done so far, over all jobs.

        Raises:
            The first exception of a job.
            ValueError: processes died.
        """


class StoppedError(Exception):
    """Raised inside a job that is to end early."""


class LocalPool:
    """Processes of this machine.

    Args:
        workers: how many; 1 runs the jobs in this process, one after another.

    Raises:
        ValueError: fewer than one.
    """

    def __init__(self, workers: int = 1):
        check_workers(workers)
        self.workers = workers

    def map_shards(self, function: Callable[[Any, Tick], Any], jobs: Sequence[Any], show: Tick) -> Iterator[Any]:
        """See ``Pool``."""
        if self.workers == 1 or len(jobs) <= 1:
            return _run_here(function, jobs, show)
        return _run_in_workers(function, jobs, min(self.workers, len(jobs)), show)


def check_workers(workers: int) -> None:
    """Raise a ValueError unless there is at least one."""
    if workers < 1:
        raise ValueError(f"`workers` (={workers}) must be at least 1.")


def _run_here(function: Callable[[Any, Tick], Any], jobs: Sequence[Any], show: Tick) -> Iterator[Any]:
    done = 0

    def tick(amount: int) -> None:
        nonlocal done
        done += amount
        show(done)

    for job in jobs:
        with one_thread():
            result = function(job, tick)
        yield result


def _run_in_workers(
    function: Callable[[Any, Tick], Any], jobs: Sequence[Any], workers: int, show: Tick
) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(workers, context, _begin_worker, (counter, stop)) as pool:
        try:
            with born_deaf():
                pending: set[Future] = {pool.submit(_run_in_worker, function, job) for job in jobs}
            while pending:
                finished, pending = wait(pending, POLL, FIRST_COMPLETED)
                show(counter.value)
                for future in finished:
                    yield future.result()
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
def born_deaf() -> Iterator[None]:
    """Let Ctrl-C wait, and start processes that never hear it: half-imported ones would print tracebacks."""
    with uninterrupted():
        resource_tracker.ensure_running()  # started later, it would unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What a job runs under: one thread, float32 by default, no gradients."""
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


def _run_in_worker(function: Callable[[Any, Tick], Any], job: Any) -> Any:
    with one_thread():
        return function(job, _tick)


def _tick(amount: int) -> None:
    counter, stop = _shared
    with counter.get_lock():
        counter.value += amount
    if stop.is_set():
        raise StoppedError
