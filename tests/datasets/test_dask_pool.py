"""Generation by real Dask workers, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from advected_heat import count_slowly
from test_generate import SLOW, alive, contents

from cliffsteer.datasets import DaskPool, Recipe, generate

pytest.importorskip("distributed")
HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return contents(generate(SLOW, tmp_path_factory.mktemp("unbroken") / "d", progress=False))


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """Address of a scheduler in a process of its own, and its two workers."""
    folder = tmp_path_factory.mktemp("dask")
    environment = os.environ | {"PYTHONPATH": HERE, "OMP_NUM_THREADS": "1"}
    address = folder / "scheduler.json"

    def start(*arguments):
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], "--scheduler-file", str(address)]
        return subprocess.Popen([*command, *arguments[1:]], cwd=folder, env=environment, stderr=subprocess.DEVNULL)

    worker = ("dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    processes = [start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
    processes += [start(*worker) for _ in range(2)]
    deadline = time.monotonic() + 30
    while not address.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    from distributed import Client

    with Client(scheduler_file=str(address), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
        yield client.scheduler.address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def test_dask_workers_make_the_same_bytes_as_this_process(scheduler, finished, recipe, tmp_path, capsys):
    generate(recipe, tmp_path / "d", pool=DaskPool(scheduler=scheduler[0]))
    assert contents(tmp_path / "d") == contents(finished)
    assert "77/77" in capsys.readouterr().err


def test_a_trajectory_that_diverges_is_told_from_a_worker(scheduler, recipe, tmp_path):
    unstable = Recipe(**{**recipe.to_dict(), "options": {"cells": 8, "conductivity": -20.0}})
    with pytest.raises(ValueError, match="Solver 'advected_heat' made NaN or infinite values by step"):
        generate(unstable, tmp_path / "d", progress=False, pool=DaskPool(scheduler=scheduler[0]), retries=0)


def test_closing_the_results_stops_the_other_jobs(scheduler):
    results = DaskPool(scheduler=scheduler[0]).map_shards(count_slowly, [1, 10**6], lambda done: None)
    process, total = next(results)
    assert (process != os.getpid(), total) == (True, 1)
    results.close()  # the other job would take hours
    again = DaskPool(scheduler=scheduler[0]).map_shards(count_slowly, [1, 2, 3], lambda done: None)
    assert sorted(total for _, total in again) == [1, 2, 3]


def test_other_software_on_a_worker_is_refused(scheduler, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("cliffsteer.__version__", "0.0.1")
    with pytest.raises(ValueError, match=r"worker on .* has cliffsteer .* but this process has cliffsteer 0\.0\.1 and"):
        generate(recipe, tmp_path / "d", progress=False, pool=DaskPool(scheduler=scheduler[0]))


def test_a_killed_worker_costs_no_shard(scheduler, tmp_path, unbroken):
    address, workers = scheduler
    out = tmp_path / "d"
    pool = DaskPool(scheduler=address)
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(generate, SLOW, out, progress=False, pool=pool)
        deadline = time.monotonic() + 30
        while not (half := list(out.glob(f"*/.*.{workers[0].pid}-*.tmp"))) and time.monotonic() < deadline:
            time.sleep(0.005)
        workers[0].kill()  # in the middle of a shard
        assert made.result() == out
    assert half
    assert workers[0].poll() is not None
    assert not list(out.glob("*/.*"))  # what the dead one left is swept
    assert contents(out) == unbroken


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import advected_heat
from cliffsteer.datasets import DaskPool, generate
from test_generate import SLOW
if __name__ == "__main__":
    try:
        generate(SLOW, sys.argv[2], progress=False, pool=DaskPool(workers=2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_cluster_of_this_machine_ends_with_its_parent_and_another_pool_finishes(how, unbroken, tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "d"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), HERE, str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/*.hdf5"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)  # as a terminal does on Ctrl-C: to parent and workers alike
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == ((-9, errors) if how == signal.SIGKILL else (130, b""))
    deadline = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(process.pid) == []
    assert 2 <= len(list(out.glob("*/*.hdf5"))) < 10
    generate(SLOW, out, progress=False)
    assert contents(out) == unbroken


def test_a_scheduler_that_does_not_answer(monkeypatch):
    monkeypatch.setattr("cliffsteer.datasets.dask_pool._PATIENCE", 0.2)
    pool = DaskPool(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(OSError, match=r"`scheduler` \(='tcp://127.0.0.1:9'\) does not answer: start one with"):
        list(pool.map_shards(count_slowly, [1], lambda done: None))


def test_there_must_be_a_worker():
    with pytest.raises(ValueError, match=r"`workers` \(=0\) must be at least 1"):
        DaskPool(0)


def test_dask_is_only_imported_where_it_is_asked_for(tmp_path):
    code = "import sys, cliffsteer.datasets as d; d.LocalPool(2); print('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
