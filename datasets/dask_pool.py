"""DaskPool: shards made by the workers of a Dask cluster, on this machine or on many, with the interface of ``Pool``.

The workers write the shards themselves, into a folder that all machines share. A shard whose worker died is made again
by another; one that several workers die of is an error. The bytes are those of ``LocalPool`` as long as the machines
have the same software and the same kind of processor: each worker runs one shard at a time, on one thread.

Needs the package ``distributed``, which is imported when the pool is used. Source: Rocklin, "Dask: parallel computation
with blocked algorithms and task scheduling" (2015).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cliffsteer.datasets.pool import POLL, StoppedError, Tick, born_deaf, check_workers, one_thread

logger = logging.getLogger(__name__)

_REPORT = 0.5  # seconds between two messages of a job about its progress
_PATIENCE = 30.0  # seconds that jobs are given to stop, and a scheduler to answer


class DaskPool:
    """The workers of a Dask cluster.

    Args:
        workers: worker processes of a cluster that is started on this machine and ends with the pool's work.
        scheduler: instead, the address of a running scheduler, e.g. "tcp://node01:8786"; it has workers of its own.

    Raises:
        ValueError: fewer than one worker, or Dask is not installed.
        OSError: the scheduler does not answer (when the pool is used).

    Example:
        >>> generate(recipe, "data/smoke", pool=DaskPool(scheduler="tcp://node01:8786"))  # doctest: +SKIP
    """

    def __init__(self, workers: int = 1, scheduler: str | None = None):
        check_workers(workers)
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "`launcher` (='dask') needs the package `distributed`: install it with `pip install distributed`."
            ) from error
        self.workers, self.scheduler = workers, scheduler

    def map_shards(self, function: Callable[[Any, Tick], Any], jobs: Sequence[Any], show: Tick) -> Iterator[Any]:
        """See ``Pool``."""
        from distributed import CancelledError, KilledWorker, as_completed

        if not jobs:
            return
        token = f"cliffsteer-{uuid.uuid4().hex}"
        done: dict[int, int] = {}
        with self._client(min(self.workers, len(jobs))) as client:
            client.subscribe_topic(token, lambda event: done.update([event[1]]))
            futures = []
            for number, job in enumerate(jobs):
                key = f"{token}-{number}"
                futures.append(client.submit(_run_job, function, job, number, token, key=key, pure=False))
            finished = as_completed(futures, loop=client.loop)
            try:
                while not finished.is_empty():
                    for future in finished.next_batch(block=False):
                        yield future.result()
                    show(sum(done.values()))
                    time.sleep(POLL)
                show(sum(done.values()))
            except KilledWorker as error:
                raise ValueError(
                    "Several workers died of one shard: they may have run out of memory (take a smaller `batch`); what"
                    " was finished is kept, so run the same command again."
                ) from error
            except CancelledError as error:
                raise OSError(
                    "The Dask scheduler has gone: start one and run the same command again; what was finished is kept."
                ) from error
            finally:
                client.cancel(futures)
                with contextlib.suppress(Exception):  # the scheduler may be gone
                    client.run(_stop, token)

    @contextlib.contextmanager
    def _client(self, workers: int) -> Iterator[Any]:
        """A client of the scheduler, or of a cluster of this machine that lives as long."""
        from distributed import Client, LocalCluster

        with contextlib.ExitStack() as stack:
            if self.scheduler is None:
                with born_deaf():  # Ctrl-C reaches this process, which stops them
                    cluster = stack.enter_context(
                        LocalCluster(
                            n_workers=workers,
                            threads_per_worker=1,
                            memory_limit=0,
                            dashboard_address="127.0.0.1:0",
                            silence_logs=logging.ERROR,
                        )
                    )
                client = stack.enter_context(Client(cluster, set_as_default=False))
            else:
                try:
                    client = Client(self.scheduler, set_as_default=False, timeout=_PATIENCE)
                except (OSError, ValueError) as error:
                    raise OSError(
                        f"`scheduler` (={self.scheduler!r}) does not answer: start one with `dask scheduler`, and"
                        " workers with `dask worker ADDRESS --nthreads 1`, or leave it out for workers of this machine."
                    ) from error
                stack.enter_context(client)
                if not client.scheduler_info()["workers"]:
                    logger.warning("%s has no workers yet; waiting for some.", self.scheduler)
            yield client


# -------------------------------------------------------------------------------------- inside the workers

_one_at_a_time = threading.Lock()  # the number of threads is a setting of the process
_stopped: set[str] = set()
_running: set[str] = set()


def _run_job(function: Callable[[Any, Tick], Any], job: Any, number: int, token: str) -> Any:
    from distributed import get_worker

    worker, done, told = get_worker(), 0, time.monotonic()

    def tick(amount: int) -> None:
        nonlocal done, told
        done += amount
        if token in _stopped:
            raise StoppedError
        if time.monotonic() - told > _REPORT:
            told = time.monotonic()
            worker.log_event(token, (number, done))

    with _one_at_a_time:
        key = f"{token}-{number}"
        _running.add(key)
        try:
            with one_thread():
                result = function(job, tick)
        finally:
            _running.discard(key)
    worker.log_event(token, (number, done))
    return result


async def _stop(token: str) -> None:
    """Stop the jobs of a pool on this worker, and wait until they have."""
    import asyncio

    _stopped.add(token)
    deadline = time.monotonic() + _PATIENCE
    while any(key.startswith(token) for key in _running) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
