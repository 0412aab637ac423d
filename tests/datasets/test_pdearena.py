import h5py
import numpy as np
import pytest
import torch
from foreign_files import pdearena_maxwell, pdearena_smoke

from cliffsteer.datasets import TrajectoryDataset, verify
from cliffsteer.datasets.convert import Settings, export_dataset, import_dataset
from cliffsteer.datasets.pdearena import read

SMOKE = {
    "smoke": {"grade": "scalar", "from": "u"},
    "velocity": {"grade": "vector", "from": ["vx", "vy"], "unit": "m/s"},
    "buoyancy": {"grade": "vector", "from": [0, "buo_y"], "role": "parameter", "unit": "m/s^2"},
}


def test_what_a_smoke_file_says(tmp_path):
    (found,) = read(pdearena_smoke(tmp_path / "NavierStokes2D_train_1_0.50000_3.h5"))
    assert (found.split, found.n_trajectories, found.n_frames, found.shape) == ("train", 3, 4, (6, 5))
    assert (found.dt, found.spacing, found.boundary) == (1.5, (32 / 6, 8.0), None)
    assert {name: v.components for name, v in found.variables.items()} == {"u": 1, "vx": 1, "vy": 1}
    assert set(found.constants) == {"buo_y"}


def test_smoke_files_become_a_dataset(tmp_path):
    (tmp_path / "in").mkdir()
    pdearena_smoke(tmp_path / "in" / "a_train.h5")
    pdearena_smoke(tmp_path / "in" / "a_valid.h5", n=1, mode="valid", buoyancy=0.2)
    root = import_dataset(
        tmp_path / "in", "pdearena", SMOKE, tmp_path / "d", Settings(boundary="no_slip", batch=2), False
    )
    assert verify(root) == []
    train, valid = TrajectoryDataset(root, "train"), TrajectoryDataset(root, "valid")
    assert (len(train), len(valid), train.n_frames, train.dt) == (3, 1, 4, 1.5)
    assert [entry.trajectories for entry in train.manifest.shards["train"]] == [(0, 2), (2, 3)]
    assert train.grid.boundary == (("no_slip", "no_slip"),) * 2
    with h5py.File(tmp_path / "in" / "a_train.h5") as file:
        for i in range(3):
            parts = train.spec.unpack(train.read(i)[None])
            np.testing.assert_allclose(parts["smoke"][0, :, 0], file["train/u"][i], rtol=1e-6)
            np.testing.assert_allclose(parts["velocity"][0, :, 0], file["train/vx"][i], rtol=1e-6)
            np.testing.assert_allclose(parts["velocity"][0, :, 1], file["train/vy"][i], rtol=1e-6)
    buoyancy = train.spec.unpack_parameters(train.parameters)["buoyancy"]
    torch.testing.assert_close(buoyancy, torch.tensor([[0.0, 0.5], [0.0, 0.51], [0.0, 0.52]]))
    card = (root / "README.md").read_text()
    assert "Made elsewhere, converted from in." in card
    assert "no_slip" in card


def test_staggered_velocity_is_averaged_to_the_centres(tmp_path):
    path = pdearena_smoke(tmp_path / "a_train.h5", n=1)
    mapping = {"velocity": {"grade": "vector", "from": ["vx", "vy"], "at": "faces"}}
    root = import_dataset(path, "pdearena", mapping, tmp_path / "d", Settings(boundary="no_slip"), False)
    frames = TrajectoryDataset(root, "train").read(0)
    with h5py.File(path) as file:
        vx, vy = (np.pad(file["train"][name][0], ((0, 0), (0, x), (0, 1 - x))) for name, x in (("vx", 1), ("vy", 0)))
    np.testing.assert_allclose(frames[:, 1], (vx[:, :-1] + vx[:, 1:]) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(frames[:, 2], (vy[..., :-1] + vy[..., 1:]) / 2, rtol=1e-5, atol=1e-6)


def test_maxwell_files_have_fields_and_nothing_else(tmp_path):
    path = pdearena_maxwell(tmp_path / "Maxwell3D_test_1.h5")
    mapping = {"D": {"grade": "vector", "from": "d_field"}, "H": {"grade": "bivector", "from": "h_field"}}
    with pytest.raises(ValueError, match=r"`dt` is missing: .*Maxwell3D_test_1\.h5 does not say it, so give it as dt="):
        import_dataset(path, "pdearena", mapping, tmp_path / "d", Settings(boundary="periodic", spacing=0.5), False)
    with pytest.raises(ValueError, match="`spacing` is missing"):
        import_dataset(path, "pdearena", mapping, tmp_path / "d", Settings(boundary="periodic", dt=0.1), False)
    settings = Settings(boundary="open", spacing=0.5, dt=0.1, unit="m")
    root = import_dataset(path, "pdearena", mapping, tmp_path / "d", settings, False)
    test = TrajectoryDataset(root, "test")
    assert (test.grid.shape, test.grid.spacing, test.dt) == ((4, 4, 4), (0.5,) * 3, 0.1)
    frames = test.read(1)
    with h5py.File(path) as file:
        d, h = (np.moveaxis(file["test"][name][1], -1, 1) for name in ("d_field", "h_field"))
    np.testing.assert_allclose(frames[:, 1:4], d, rtol=1e-6)
    e12, e13, e23 = frames[:, 4:7].unbind(1)
    np.testing.assert_allclose(torch.stack([e23, -e13, e12], 1), h, rtol=1e-6)  # an axial vector


@pytest.mark.parametrize("which", ["smoke", "maxwell"])
def test_there_and_back_again(which, tmp_path):
    if which == "smoke":
        source, mapping = pdearena_smoke(tmp_path / "in.h5"), SMOKE
    else:
        source = pdearena_maxwell(tmp_path / "in.h5", mode="train")
        mapping = {"D": {"grade": "vector", "from": "d_field"}, "H": {"grade": "bivector", "from": "h_field"}}
    settings = Settings(boundary="periodic", spacing=2.0, dt=1.5)
    root = import_dataset(source, "pdearena", mapping, tmp_path / "d", settings, False)
    (path,) = export_dataset(root, "pdearena", tmp_path / "out", mapping)
    assert path.name == "in_train_0.h5"
    with h5py.File(source) as first, h5py.File(path) as second:
        for name in ("u", "vx", "vy", "buo_y", "dt", "d_field", "h_field"):
            if name in first["train"]:
                assert second["train"][name].shape == first["train"][name].shape
                np.testing.assert_allclose(second["train"][name], first["train"][name], rtol=1e-6)
    again = import_dataset(path, "pdearena", mapping, tmp_path / "again", Settings(boundary="periodic"), False)
    assert TrajectoryDataset(again, "train").grid == TrajectoryDataset(root, "train").grid
    for i in range(len(TrajectoryDataset(root, "train"))):
        assert torch.equal(TrajectoryDataset(again, "train").read(i), TrajectoryDataset(root, "train").read(i))


def test_what_is_no_file_of_pdearena(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("other")
    with pytest.raises(ValueError, match=r"x\.h5 has none of the groups train, valid and test"):
        list(read(tmp_path / "x.h5"))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("train")
    with pytest.raises(ValueError, match=r"has no array \(trajectory, time, x, \.\.\.\) in the group '/train'"):
        list(read(tmp_path / "x.h5"))
    path = pdearena_smoke(tmp_path / "y.h5")
    with h5py.File(path, "r+") as file:
        file["train/dt"][1] = 3.0
    with pytest.raises(ValueError, match=r"y\.h5 has trajectories of different dt"):
        list(read(path))
