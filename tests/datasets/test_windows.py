import math
import pickle

import h5py
import pytest
import torch
from torch.utils.data import DataLoader

from cliffsteer import rollout
from cliffsteer.datasets import TrajectoryDataset, WindowDataset, trajectory_seed
from cliffsteer.solvers import create


@pytest.fixture
def train(finished):
    return TrajectoryDataset(finished, "train")


def test_trajectories_are_those_of_the_solver(train):
    solver = create("advected_heat", cells=8)
    assert (train.spec, train.grid, train.dt) == (solver.spec, solver.grid, solver.dt)
    assert (len(train), train.n_trajectories, train.n_frames) == (5, 5, 11)
    assert train.seeds == tuple(trajectory_seed(3, "train", i) for i in range(5))
    for i in (0, 3, 4):
        state = solver.initial([train.seeds[i]])
        first = solver.observe(state)
        exact = torch.cat([first, rollout(solver, first, 10, state.parameters)], 1)[0]
        torch.testing.assert_close(train.read(i), exact.float(), rtol=1e-6, atol=1e-5)
        packed = solver.spec.pack_parameters(state.parameters, 1)
        assert torch.equal(train.parameters[i : i + 1], packed)
    assert len(torch.unique(train.parameters[:, 1])) == 5  # sampled anew for each trajectory


def test_splits_differ(finished, train):
    valid = TrajectoryDataset(finished, "valid")
    assert len(valid) == 2
    assert not torch.equal(valid.read(0), train.read(0))


def test_reads_are_cuts_of_the_trajectory(train):
    whole = train.read(2)
    assert whole.shape == (11, 4, 8, 8)
    assert whole.dtype == torch.float32
    assert torch.equal(train.read(2, 4, 7), whole[4:7])
    for window in ((5, 0, 1), (0, 10, 12), (0, -1, 1), (0, 3, 3)):
        with pytest.raises(ValueError, match="out of range: split 'train' has 5 trajectories of 11 frames"):
            train.read(*window)


def test_few_files_stay_open(train, monkeypatch):
    monkeypatch.setattr("cliffsteer.datasets.windows._MAX_OPEN", 2)
    expected = [TrajectoryDataset(train.root, "train").read(i) for i in range(5)]
    for i in (0, 4, 2, 0, 1, 3, 4):
        assert torch.equal(train.read(i), expected[i])
        assert len(train._open) <= 2
    train.close()
    assert torch.equal(train.read(0), expected[0])


def test_windows_are_enumerated(train):
    windows = WindowDataset(train, history=3, future=2, stride=2)
    assert windows.per_trajectory == 4
    assert [windows.locate(i) for i in range(5)] == [(0, 0), (0, 2), (0, 4), (0, 6), (1, 0)]
    assert len(windows) == 20
    for i in (0, 5, 19):
        item, (trajectory, start) = windows[i], windows.locate(i)
        assert torch.equal(item["history"], train.read(trajectory, start, start + 3))
        assert torch.equal(item["future"], train.read(trajectory, start + 3, start + 5))
        assert torch.equal(item["parameters"], train.parameters[trajectory])
    assert len(WindowDataset(train, 10, 1)) == 5
    assert len(list(windows)) == 20  # indexing ends with an IndexError
    with pytest.raises(IndexError, match=r"`index` \(=20\) is out of range: there are 20 windows"):
        windows[20]


def test_windows_that_do_not_fit(train):
    with pytest.raises(ValueError, match=r"need 12 frames, but the trajectories have 11"):
        WindowDataset(train, 8, 4)
    with pytest.raises(ValueError, match=r"`stride` \(=0\) must be at least 1"):
        WindowDataset(train, 1, 1, 0)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_loader_processes_give_the_same_windows(train, context):
    windows = WindowDataset(train, 2, 1)
    expected = [windows[i] for i in range(len(windows))]  # opens the files in this process first
    loader = DataLoader(windows, batch_size=9, num_workers=2, multiprocessing_context=context)
    batches = list(loader)
    for key in ("history", "future", "parameters"):
        assert torch.equal(torch.cat([b[key] for b in batches]), torch.stack([e[key] for e in expected]))


def test_a_pickled_dataset_reads_on(train):
    expected = train.read(1)
    assert torch.equal(pickle.loads(pickle.dumps(train)).read(1), expected)


def test_bad_roots_and_splits(finished, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no dataset in"):
        TrajectoryDataset(tmp_path, "train")
    with pytest.raises(ValueError, match=r"`split` \(='tests'\) is not in .*choose from 'train', 'valid'"):
        TrajectoryDataset(finished, "tests")


def test_damaged_shards_are_named(dataset):
    path = dataset / "train" / "shard_00001.hdf5"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(ValueError, match=r"train/shard_00001\.hdf5 has \d+ bytes instead of \d+, so it is truncated"):
        TrajectoryDataset(dataset, "train")
    assert len(TrajectoryDataset(dataset, "valid")) == 2
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train/shard_00001\.hdf5 is missing"):
        TrajectoryDataset(dataset, "train")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_in_the_data_names_file_and_trajectory(dataset, bad):
    with h5py.File(dataset / "train" / "shard_00001.hdf5", "r+") as file:
        file["t1_fields/flux"][1, 6, 0, 0, 1] = bad
    train = TrajectoryDataset(dataset, "train")
    train.read(3, 0, 6)
    with pytest.raises(ValueError, match=r"shard_00001\.hdf5 holds NaN or infinite values in trajectory 3 of split"):
        train.read(3, 5, 8)


def test_large_finite_values_are_no_nan(dataset):
    with h5py.File(dataset / "train" / "shard_00000.hdf5", "r+") as file:
        file["t0_fields/temperature"][0, 0] = 3e38  # the sum overflows
    assert float(TrajectoryDataset(dataset, "train").read(0, 0, 1).max()) > 2e38


def test_the_first_trajectories_of_a_split(finished, train):
    first = TrajectoryDataset(finished, "train", first=2)
    assert (len(first), first.seeds) == (2, train.seeds[:2])
    assert torch.equal(first.parameters, train.parameters[:2])
    assert torch.equal(first.read(1), train.read(1))
    assert len(WindowDataset(first, 2, 1)) == 2 * WindowDataset(train, 2, 1).per_trajectory
    with pytest.raises(ValueError, match=r"0\.\.7 of trajectory 2 are out of range"):
        first.read(2, 0, 7)
    for count in (0, len(train) + 1):
        with pytest.raises(ValueError, match=rf"{count} trajectories of .* split 'train' has {len(train)}"):
            TrajectoryDataset(finished, "train", first=count)
