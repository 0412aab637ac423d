import h5py
import numpy as np
import pytest
import torch
from foreign_files import pdebench_flow, pdebench_groups, pdebench_incompressible, pdebench_tensor

from cliffsteer.datasets import TrajectoryDataset, verify
from cliffsteer.datasets.convert import Settings, export_dataset, import_dataset
from cliffsteer.datasets.pdebench import read

FLOW = {"density": "scalar", "pressure": {"grade": "scalar", "unit": "Pa"}}


def flow_mapping(dim):
    velocity = {"grade": "vector", "from": [f"V{axis}" for axis in "xyz"[:dim]], "unit": "m/s"}
    return FLOW | {"velocity": velocity, "eta": {"grade": "scalar", "role": "parameter"}}


@pytest.mark.parametrize("shape", [(8,), (4, 6), (3, 4, 5)])
def test_compressible_flow_there_and_back_again(shape, tmp_path):
    path, mapping = pdebench_flow(tmp_path / "CFD_Train.hdf5", shape), flow_mapping(len(shape))
    root = import_dataset(path, "pdebench", mapping, tmp_path / "d", Settings(boundary="periodic", batch=2), False)
    assert verify(root) == []
    train = TrajectoryDataset(root, "train")
    assert train.dt == pytest.approx(0.05)
    assert train.grid.extent == pytest.approx((1.0,) * len(shape))
    parts = train.spec.unpack(torch.stack([train.read(i) for i in range(3)]))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(parts["density"][:, :, 0], file["density"])
        np.testing.assert_array_equal(parts["pressure"][:, :, 0], file["pressure"])
        for i in range(len(shape)):
            np.testing.assert_array_equal(parts["velocity"][:, :, i], file[f"V{'xyz'[i]}"])
        assert train.parameters[:, 0].tolist() == pytest.approx([0.1] * 3)
        (written,) = export_dataset(root, "pdebench", tmp_path / "out", mapping)
        with h5py.File(written) as back:
            for name in ("density", "pressure", "Vx", "x-coordinate"):
                np.testing.assert_allclose(back[name], file[name], rtol=1e-5)
            np.testing.assert_allclose(back["t-coordinate"], file["t-coordinate"][:-1], rtol=1e-5)
            assert back.attrs["eta"] == pytest.approx(0.1)


def test_tensors(tmp_path):
    (found,) = read(pdebench_tensor(tmp_path / "1D_Burgers.hdf5"))
    assert (found.n_trajectories, found.n_frames, found.shape, found.split) == (3, 4, (8,), None)
    assert found.dt == pytest.approx(0.01)
    assert found.constants["Nu"].tolist() == [[0.01]] * 3
    settings = Settings(boundary="periodic", split="test")
    root = import_dataset(tmp_path, "pdebench", {"u": {"grade": 0, "from": "tensor"}}, tmp_path / "d", settings, False)
    with h5py.File(tmp_path / "1D_Burgers.hdf5") as file:
        np.testing.assert_array_equal(TrajectoryDataset(root, "test").read(2)[:, 0], file["tensor"][2])


def test_incompressible_flow_has_components_last_and_a_constant_force(tmp_path):
    path = pdebench_incompressible(tmp_path / "ns.h5")
    mapping = {"velocity": "vector", "particles": "scalar", "force": "vector"}
    settings = Settings(boundary="no_slip", spacing=0.01)
    root = import_dataset(path, "pdebench", mapping, tmp_path / "d", settings, False)
    train = TrajectoryDataset(root, "train")
    assert train.dt == pytest.approx(0.005)
    parts = train.spec.unpack(train.read(1)[None])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(parts["velocity"][0].movedim(1, -1), file["velocity"][1])
        np.testing.assert_array_equal(parts["particles"][0, :, 0], file["particles"][1, ..., 0])
        np.testing.assert_array_equal(parts["force"][0].movedim(1, -1), np.stack([file["force"][1]] * 3))


def test_a_group_for_each_trajectory(tmp_path):
    path = pdebench_groups(tmp_path / "2D_diff-react_NA_NA.h5")
    mapping = {"u": {"grade": "scalar", "from": "data[0]"}, "v": {"grade": "scalar", "from": "data[1]"}}
    root = import_dataset(path, "pdebench", mapping, tmp_path / "d", Settings(boundary="slip"), False)
    train = TrajectoryDataset(root, "train")
    assert train.grid.spacing == pytest.approx((0.5, 0.25))
    parts = train.spec.unpack(train.read(1)[None])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(parts["u"][0, :, 0], file["0001/data"][..., 0])
        np.testing.assert_array_equal(parts["v"][0, :, 0], file["0001/data"][..., 1])
    with pytest.raises(
        ValueError, match=r"`mapping` of 'u' cannot be written back: `from: data\[0\]` only says how to r"
    ):
        export_dataset(root, "pdebench", tmp_path / "out", mapping)
    assert not any((tmp_path / "out").iterdir())


def test_what_is_no_dataset_of_trajectories(tmp_path):
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
        file["tensor"], file["nu"] = np.zeros((3, 1, 4, 4)), np.zeros((3, 4, 4))
        file["x-coordinate"] = file["y-coordinate"] = np.arange(4.0)
    with pytest.raises(ValueError, match=r"darcy\.hdf5 has no evolution in time: "):
        list(read(tmp_path / "darcy.hdf5"))
    with h5py.File(tmp_path / "empty.hdf5", "w"):
        pass
    with pytest.raises(ValueError, match="so it is no file of PDEBench's trajectories"):
        list(read(tmp_path / "empty.hdf5"))
    path = pdebench_flow(tmp_path / "flow.hdf5")
    with h5py.File(path, "r+") as file:
        file["t-coordinate"][2] = 0.12
    with pytest.raises(ValueError, match=r"flow\.hdf5 has coordinates t that are not equidistant"):
        list(read(path))
