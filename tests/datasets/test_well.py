import h5py
import numpy as np
import pytest
import torch
from foreign_files import well

from cliffsteer.datasets import TrajectoryDataset, verify
from cliffsteer.datasets.convert import Settings, export_dataset, import_dataset
from cliffsteer.datasets.well import read

MAPPING = {
    "p": "scalar",
    "mask": "scalar",
    "profile": "scalar",
    "B": {"grade": "bivector", "unit": "T"},
    "g": {"grade": "scalar", "role": "parameter"},
    "nu": {"grade": "scalar", "role": "parameter"},
}


def test_what_a_file_says(tmp_path):
    (tmp_path / "data" / "valid").mkdir(parents=True)
    (found,) = read(well(tmp_path / "data" / "valid" / "a.hdf5"))
    assert (found.name, found.split, found.n_trajectories, found.n_frames) == ("little", "valid", 2, 4)
    assert (found.shape, found.dt) == ((3, 4, 5), pytest.approx(0.5))
    assert found.spacing == pytest.approx((1 / 3, 1 / 4, 1 / 5))
    assert found.boundary == (("periodic",) * 2, ("no_slip",) * 2, ("open",) * 2)
    assert {n: v.components for n, v in found.variables.items()} == {"p": 1, "mask": 1, "profile": 1, "B": 3, "S": 9}
    assert {name: values.tolist() for name, values in found.constants.items()} == {
        "nu": [[0.5], [0.5]],
        "g": [[1.0], [2.0]],
    }


def test_every_kind_of_field_becomes_frames(tmp_path):
    path = well(tmp_path / "a.hdf5")
    root = import_dataset(path, "well", MAPPING, tmp_path / "d", None, False)
    assert verify(root) == []
    train = TrajectoryDataset(root, "train")
    parts = {name: part[0] for name, part in train.spec.unpack(train.read(1)[None]).items()}
    with h5py.File(path) as file:
        np.testing.assert_array_equal(parts["p"][:, 0], file["t0_fields/p"][1])
        np.testing.assert_array_equal(parts["mask"][:, 0], np.stack([file["t0_fields/mask"]] * 4))
        np.testing.assert_array_equal(
            parts["profile"][:, 0], np.broadcast_to(file["t0_fields/profile"][1], (4, 3, 4, 5))
        )
        e12, e13, e23 = parts["B"].unbind(1)
        np.testing.assert_array_equal(torch.stack([e23, -e13, e12], -1), file["t1_fields/B"][1])
    parameters = train.spec.unpack_parameters(train.parameters)
    assert (parameters["g"].tolist(), parameters["nu"].tolist()) == ([[1.0], [2.0]], [[0.5], [0.5]])


def test_a_tensor_has_no_grade(tmp_path):
    with pytest.raises(
        ValueError, match=r"grade 1, which has 3 component\(s\) on 3 axes, from S with 9; .* S \(9 comp"
    ):
        import_dataset(well(tmp_path / "a.hdf5"), "well", {"S": "vector"}, tmp_path / "d", None, False)


def test_our_own_shards_come_back_as_they_were(finished, tmp_path):
    paths = export_dataset(finished, "well", tmp_path / "out")
    assert paths == [tmp_path / "out" / "data" / split for split in ("train", "valid")]
    for split in ("train", "valid"):
        for path in (finished / split).iterdir():
            assert (tmp_path / "out" / "data" / split / path.name).read_bytes() == path.read_bytes()
    wind = {"grade": "vector", "role": "parameter", "from": ["wind_e1", "wind_e2"]}
    mapping = {"temperature": "scalar", "flux": "vector", "wind": wind}
    root = import_dataset(tmp_path / "out", "well", mapping, tmp_path / "d", Settings(batch=2, unit="m"), False)
    for split, n in (("train", 5), ("valid", 2)):
        ours, theirs = TrajectoryDataset(finished, split), TrajectoryDataset(root, split)
        assert (theirs.grid, theirs.n_trajectories) == (ours.grid, n)
        assert theirs.dt == pytest.approx(ours.dt)
        for i in range(n):
            assert torch.equal(theirs.read(i), ours.read(i))
        wind = [d.spec.unpack_parameters(d.parameters)["wind"] for d in (ours, theirs)]
        assert torch.equal(*wind)


def test_what_is_no_file_of_the_well(tmp_path):
    path = well(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file.attrs["grid_type"] = "spherical"
    with pytest.raises(ValueError, match=r"a\.hdf5 has a grid of the type 'spherical': only 'cartesian' ones"):
        list(read(path))
    with h5py.File(path, "r+") as file:
        del file["t2_fields"]
    with pytest.raises(ValueError, match=r"a\.hdf5 has no group 't2_fields', so it is no file of The Well"):
        list(read(path))
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.hdf5 is truncated, damaged or not HDF5"):
        list(read(path))


def test_the_wells_own_reader_opens_our_shards(finished, tmp_path):
    """With The Well's package, where it is installed."""
    data = pytest.importorskip("the_well.data")
    export_dataset(finished, "well", tmp_path / "out")
    ours = TrajectoryDataset(finished, "train")
    for options in ({"path": str(finished / "train")}, {"path": str(tmp_path / "out"), "well_split_name": "train"}):
        theirs = data.WellDataset(**options, n_steps_input=2, n_steps_output=1)
        assert len(theirs) == 5 * 9
        assert theirs.metadata.field_names[0] + theirs.metadata.field_names[1] == ["temperature", "flux_x", "flux_y"]
        assert theirs.metadata.boundary_condition_types == ["PERIODIC"]
        for index in (0, 10, 44):
            sample, (trajectory, start) = theirs[index], divmod(index, 9)
            expected = ours.read(trajectory, start, start + 3)[:, :3].movedim(1, -1)
            assert torch.equal(torch.cat([sample["input_fields"], sample["output_fields"]]), expected)
            assert sample["boundary_conditions"].tolist() == [[2, 2], [2, 2]]


def test_our_reader_agrees_with_the_wells_own(tmp_path):
    data = pytest.importorskip("the_well.data")
    path = well(tmp_path / "a.hdf5")
    root = import_dataset(path, "well", {"p": "scalar", "profile": "scalar"}, tmp_path / "d", None, False)
    theirs = data.WellDataset(path=str(tmp_path), n_steps_input=3, n_steps_output=1)
    ours = TrajectoryDataset(root, "train")
    for i in range(2):
        sample = theirs[i]
        fields = torch.cat([sample["input_fields"], sample["output_fields"]])[..., :2]
        parts = ours.spec.unpack(ours.read(i)[None])
        assert torch.equal(fields, torch.stack([parts["p"][0, :, 0], parts["profile"][0, :, 0]], -1))
