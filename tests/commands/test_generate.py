"""What `cliffsteer generate` makes of its keys."""

import pytest
from omegaconf import OmegaConf

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.generate import pool
from cliffsteer.datasets import DaskPool, LocalPool


def config(**keys):
    return OmegaConf.create({"workers": 2, "launcher": "local", "scheduler": None} | keys)


def test_processes_of_this_machine_are_the_default():
    assert isinstance(pool(config()), LocalPool)
    assert pool(config()).workers == 2


def test_dask_has_workers_of_its_own_or_a_scheduler():
    pytest.importorskip("distributed")
    found = pool(config(launcher="dask"))
    assert isinstance(found, DaskPool)
    assert (found.workers, found.scheduler) == (2, None)
    assert pool(config(launcher="dask", scheduler="tcp://node:8786")).scheduler == "tcp://node:8786"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"launcher": "dsak"}, r"`launcher` \(='dsak'\) is unknown: did you mean 'dask'\?"),
        ({"launcher": "cluster"}, r"`launcher` \(='cluster'\) is unknown: choose from 'local', 'dask'"),
        ({"scheduler": "tcp://node:8786"}, r"belongs to launcher=dask, but `launcher` is 'local'"),
    ],
)
def test_mistakes(keys, message):
    with pytest.raises(UsageError, match=message):
        pool(config(**keys))
    with pytest.raises(ValueError, match=r"`workers` \(=0\) must be at least 1"):
        pool(config(workers=0))
