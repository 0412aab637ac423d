import os

import pytest
import torch
from advected_heat import count_slowly, die

from cliffsteer.datasets.pool import LocalPool


def test_one_worker_runs_here_on_one_thread_and_restores_the_settings():
    seen, shown = [], []

    def task(argument, tick):
        seen.append((argument, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()))
        tick(2)
        return argument.upper()

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        results = LocalPool().map_shards(task, ["a", "b"], shown.append)
        assert next(results) == "A"
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)  # between two jobs as well
        assert list(results) == ["B"]
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
    assert seen == [("a", 1, torch.float32, False), ("b", 1, torch.float32, False)]
    assert shown == [2, 4]


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(ValueError, match=r"A worker process died: it may have run out of memory"):
        list(LocalPool(2).map_shards(die, [1, 2], lambda done: None))


def test_results_come_from_new_processes_and_closing_stops_the_others():
    shown = []
    results = LocalPool(2).map_shards(count_slowly, [3, 10**6], shown.append)
    process, total = next(results)
    assert process != os.getpid()
    assert total == 3
    results.close()  # the other job would take hours
    assert shown[-1] >= 3


def test_there_must_be_a_worker():
    with pytest.raises(ValueError, match=r"`workers` \(=0\) must be at least 1"):
        LocalPool(0)
