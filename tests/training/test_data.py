import os
import signal
from itertools import chain, islice

import pytest
import torch
from torch.utils.data import DataLoader

from cliffsteer.training.data import ShuffledBatches, readers


def test_a_pass_gives_every_window_once_and_the_next_another_order():
    batches = list(islice(ShuffledBatches(12, 4, seed=0), 6))
    first, second = list(chain(*batches[:3])), list(chain(*batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert first != list(range(12))


def test_the_order_depends_on_the_seed_and_the_step_alone():
    whole = list(islice(ShuffledBatches(13, 4, seed=3), 20))
    assert list(islice(ShuffledBatches(13, 4, seed=3, start=7), 13)) == whole[7:]
    assert list(islice(ShuffledBatches(13, 4, seed=4), 20)) != whole
    assert all(len(set(batch)) == 4 for batch in whole)


def test_batches_larger_than_the_data_are_filled_from_further_passes():
    batches = list(islice(ShuffledBatches(3, 8, seed=0), 3))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    stream = list(chain(*batches))
    assert all(sorted(stream[i : i + 3]) == [0, 1, 2] for i in range(0, 24, 3))


def test_ranks_share_each_batch():
    whole = list(islice(ShuffledBatches(12, 4, seed=0), 5))
    parts = [list(islice(ShuffledBatches(12, 4, seed=0, rank=rank, parts=2), 5)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]
    assert {len(batch) for part in parts for batch in part} == {2}


def test_accumulated_batches_make_up_a_batch():
    whole = list(islice(ShuffledBatches(12, 8, seed=0), 4))
    for rank in range(2):
        parts = list(islice(ShuffledBatches(12, 8, seed=0, rank=rank, parts=2, accumulate=2), 8))
        assert {len(part) for part in parts} == {2}
        assert [sorted(a + b) for a, b in zip(parts[::2], parts[1::2], strict=True)] == [
            sorted(batch[rank::2]) for batch in whole
        ]


def test_no_windows():
    with pytest.raises(ValueError, match=r"`size` \(=0\)"):
        ShuffledBatches(0, 4, seed=0)


class Deadly(torch.utils.data.Dataset):
    """Reading it ends the process."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # quicker than spawning, and nothing is computed
def test_readers_that_die_or_cannot_start_tell_which_key_to_change():
    import resource

    message = r"^`data.workers` \(=1\): the reader processes did not last \(.*\); take fewer"
    with pytest.raises(RuntimeError, match=message), readers(1):
        next(iter(DataLoader(Deadly(), num_workers=1, multiprocessing_context="fork")))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(RuntimeError, match=message), readers(1):
            os.pipe()  # as a process does that is started
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with pytest.raises(RuntimeError, match=r"^another"), readers(1):
        raise RuntimeError("another")
