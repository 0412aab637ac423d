import pytest
import torch
from advected_heat import die

from cliffsteer.datasets.pool import run_tasks


def test_one_worker_runs_here_on_one_thread_and_restores_the_settings():
    seen, shown = [], []

    def task(argument, tick):
        seen.append((argument, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()))
        tick(2)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        run_tasks(task, ["a", "b"], 1, shown.append)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
    assert seen == [("a", 1, torch.float32, False), ("b", 1, torch.float32, False)]
    assert shown == [2, 4]


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(ValueError, match=r"A worker process died: it may have run out of memory"):
        run_tasks(die, [1, 2], 2, lambda done: None)
