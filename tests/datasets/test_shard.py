import pickle

import h5py
import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets import Header, Shard, ShardWriter

SPEC = FieldSpec((1, 1), [Field("s", 0), Field("v", 1)])
GRID = Grid((4, 4))


@pytest.fixture
def path(tmp_path):
    with ShardWriter(tmp_path / "s.hdf5", Header(SPEC, GRID, 1.0, 3, (1, 2), {}, "demo")) as writer:
        writer.append(torch.arange(3.0).view(1, 3, 1, 1, 1).expand(2, 3, 4, 4, 4))
    return tmp_path / "s.hdf5"


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_truncated_file(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep >= 1 else int(keep * len(data))])
    with pytest.raises(ValueError, match=r"s\.hdf5 is truncated, damaged or not HDF5: delete it and run"):
        Shard(path).read(0, 0, 1)


def test_a_missing_file(path):
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no shard .*s\.hdf5"):
        _ = Shard(path).header


def test_another_version(path):
    with h5py.File(path, "r+") as file:
        file["cliffsteer"].attrs["format_version"] = 2
    with pytest.raises(ValueError, match=r"s\.hdf5 has format version 2, this cliffsteer reads 1: use the cliffsteer"):
        _ = Shard(path).header


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("cliffsteer", "has no group 'cliffsteer': it is HDF5, but not a shard written by cliffsteer"),
        ("t2_fields", "lacks the group 't2_fields'"),
        ("t1_fields/v", r"has nothing at t1_fields/v, expected shape \(2, 3, 4, 4, 2\)"),
    ],
)
def test_missing_groups_and_fields(path, remove, message):
    with h5py.File(path, "r+") as file:
        del file[remove]
    with pytest.raises(ValueError, match=message):
        _ = Shard(path).header


def test_damaged_attributes(path):
    with h5py.File(path, "r+") as file:
        file["cliffsteer"].attrs["spec"] = "{"
    with pytest.raises(ValueError, match=r"s\.hdf5 is damaged"):
        _ = Shard(path).header
    with h5py.File(path, "r+") as file:
        del file["cliffsteer"].attrs["spec"]
    with pytest.raises(ValueError, match=r"s\.hdf5 is damaged"):
        _ = Shard(path).header


def test_another_spec_or_grid(path):
    with pytest.raises(ValueError, match="has other fields than its dataset"):
        _ = Shard(path, FieldSpec((1, 1), [Field("s", 0), Field("v", 1, "m/s")])).header
    with pytest.raises(ValueError, match="has other grid than its dataset"):
        _ = Shard(path, SPEC, Grid((4, 4), 2.0)).header


def test_windows_outside_the_shard(path):
    shard = Shard(path)
    for window in ((2, 0, 1), (-1, 0, 1), (0, 2, 4), (0, 1, 1)):
        with pytest.raises(ValueError, match=r"are not in .* which holds 2 trajectories of 3 frames"):
            shard.read(*window)


def test_it_is_lazy_and_reopens_after_closing_and_pickling(path):
    shard = Shard(path, SPEC, GRID)
    copy = pickle.loads(pickle.dumps(shard))
    assert float(shard.read(1, 2, 3)[0, 0, 0, 0]) == 2
    shard.close()
    assert torch.equal(shard.read(1, 0, 3), pickle.loads(pickle.dumps(shard)).read(1, 0, 3))
    assert torch.equal(copy.read(0, 0, 3), shard.read(0, 0, 3))
    assert len(pickle.dumps(shard)) < 2000
