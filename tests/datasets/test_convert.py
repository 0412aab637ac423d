import hashlib
import json

import h5py
import numpy as np
import pytest
import torch
from foreign_files import pdebench_flow, pdebench_tensor

from cliffsteer.datasets import TrajectoryDataset, read_manifest, verify
from cliffsteer.datasets.convert import Settings, export_dataset, import_dataset

FLOW = {"density": "scalar", "velocity": {"grade": "vector", "from": ["Vx", "Vy"]}}
PERIODIC = Settings(boundary="periodic", batch=2)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    pdebench_flow(tmp_path / "in" / "a.hdf5")
    pdebench_flow(tmp_path / "in" / "b.hdf5", n=1)
    return tmp_path / "in"


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_files_become_shards_in_order_and_the_same_every_time(source, tmp_path, capsys):
    root = import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC)
    assert "convert pdebench" in capsys.readouterr().err
    manifest = read_manifest(root)
    assert (manifest.verb, manifest.recipe.solver, manifest.recipe.splits) == ("convert", "a", {"train": 4})
    files = {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(source.iterdir())
    }
    options = {"format": "pdebench", "source": {"name": "in", "files": files}, "mapping": FLOW}
    assert manifest.recipe.options == manifest.options == options
    assert "Made elsewhere, converted from in." in (root / "README.md").read_text()
    assert manifest.packages == {"torch": torch.__version__}
    assert [entry.trajectories for entry in manifest.shards["train"]] == [(0, 2), (2, 3), (3, 4)]
    assert len(TrajectoryDataset(root, "train")) == 4
    import_dataset(source, "pdebench", FLOW, tmp_path / "e", PERIODIC, False)
    assert contents(tmp_path / "e") == contents(root)


def test_a_damaged_or_missing_shard_is_made_again_and_another_mapping_is_refused(source, tmp_path):
    root = import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    before = contents(root)
    (root / "train" / "shard_00001.hdf5").unlink()
    assert verify(root) == [f"{root}/train/shard_00001.hdf5 is missing: run the same `cliffsteer convert` again."]
    kept = (root / "train" / "shard_00000.hdf5").stat().st_ino
    import_dataset(source, "pdebench", FLOW, root, PERIODIC, False)
    assert contents(root) == before
    assert (root / "train" / "shard_00000.hdf5").stat().st_ino == kept
    with pytest.raises(
        ValueError, match=r"holds a dataset of another recipe: `options\.mapping\.pressure` is unset there"
    ):
        import_dataset(source, "pdebench", FLOW | {"pressure": "scalar"}, root, PERIODIC, False)


def test_other_files_of_the_same_name_are_refused(source, tmp_path):
    root = import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    pdebench_flow(source / "a.hdf5", n=2)
    pdebench_flow(source / "b.hdf5", n=2)
    with pytest.raises(ValueError, match=r"another recipe: `options\.source\.files\.a\.hdf5\.sha256` is .* there, "):
        import_dataset(source, "pdebench", FLOW, root, PERIODIC, False)


def test_a_file_mended_in_place_is_refused_and_one_that_moved_is_not(source, tmp_path):
    root = import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    (tmp_path / "elsewhere").mkdir()
    source = source.rename(tmp_path / "elsewhere" / "in")
    (root / "train" / "shard_00002.hdf5").unlink()
    import_dataset(source, "pdebench", FLOW, root, PERIODIC, False)
    assert verify(root) == []
    size = (source / "b.hdf5").stat().st_size
    with h5py.File(source / "b.hdf5", "r+") as file:
        file["Vx"][0, 3, 0, 0] += 1
    assert (source / "b.hdf5").stat().st_size == size
    with pytest.raises(ValueError, match=r"`options\.source\.files\.b\.hdf5\.sha256` is .*; give another folder"):
        import_dataset(source, "pdebench", FLOW, root, PERIODIC, False)


def test_names_stay_inside_their_folder(source, tmp_path):
    with pytest.raises(ValueError, match=r"`name` \(='\.\./evil'\) becomes a file's name: use letters, digits"):
        import_dataset(source, "pdebench", FLOW, tmp_path / "d", Settings(boundary="periodic", name="../evil"), False)
    assert not (tmp_path / "d").exists()
    odd = (source / "a.hdf5").rename(tmp_path / "flow (1) M0.1.hdf5")
    root = import_dataset(odd, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    assert read_manifest(root).recipe.solver == "flow_1_M0.1"
    data = json.loads((root / "dataset.json").read_text())
    data["recipe"]["solver"] = "../evil"
    (root / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"`name` \(='\.\./evil'\) becomes a file's name"):
        export_dataset(root, "pdebench", tmp_path / "out")


def test_a_dataset_is_not_written_over(finished, dataset):
    with pytest.raises(ValueError, match=r"`out` \(=.*heat\) holds a dataset of cliffsteer: give another folder"):
        export_dataset(finished, "pdebench", dataset)


def test_what_the_files_say_can_be_put_right(source, tmp_path):
    settings = Settings((1, -1), "test", 4, 0.5, [0.1, 0.2], ["open", "slip"], ["s", "m"], "ms", "mine")
    root = import_dataset(source, "pdebench", FLOW, tmp_path / "d", settings, False)
    test = TrajectoryDataset(root, "test")
    assert test.spec.algebra.signature == (1, -1)
    assert (test.dt, test.grid.spacing, test.grid.unit) == (0.5, (0.1, 0.2), ("s", "m"))
    assert test.grid.boundary == (("open", "open"), ("slip", "slip"))
    assert (test.manifest.time_unit, test.manifest.recipe.solver) == ("ms", "mine")


def test_files_unlike_each_other(source, tmp_path):
    pdebench_flow(source / "c.hdf5", shape=(4, 7))
    with pytest.raises(ValueError, match=r"c\.hdf5 has another grid than the files before it, Grid\(shape=\(4, 7\)"):
        import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    pdebench_flow(source / "c.hdf5", nt=4)
    with pytest.raises(
        ValueError, match=r"c\.hdf5 has another number of frames than the files before it, 4 instead of 5"
    ):
        import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    assert not (tmp_path / "d").exists()


def test_nan_is_named_and_nothing_is_left_half_done(source, tmp_path):
    with h5py.File(source / "b.hdf5", "r+") as file:
        file["Vx"][0, 3, 0, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"b\.hdf5 holds NaN or infinite values in trajectory 0 between frames 0 and 5"
    ):
        import_dataset(source, "pdebench", FLOW, tmp_path / "d", PERIODIC, False)
    names = sorted(path.name for path in (tmp_path / "d" / "train").iterdir() if path.suffix == ".hdf5")
    assert names == ["shard_00000.hdf5", "shard_00001.hdf5"]
    assert not list((tmp_path / "d").rglob(".*"))


def test_unknown_formats_sources_and_boundaries(source, tmp_path):
    with pytest.raises(ValueError, match=r"`format` \(='pdebensh'\) must be one of well, .*Did you mean 'pdebench'\?"):
        import_dataset(source, "pdebensh", FLOW, tmp_path / "d")
    with pytest.raises(FileNotFoundError, match=r"`source` \(=.*nothing\) is no file, and no folder with files \.hdf5"):
        import_dataset(tmp_path / "nothing", "pdebench", FLOW, tmp_path / "d")
    with pytest.raises(
        ValueError, match=r"`boundary` is missing: .*a\.hdf5 does not say it, so give it as boundary=\.\.\."
    ):
        import_dataset(source, "pdebench", FLOW, tmp_path / "d")
    with pytest.raises(ValueError, match=r"`dt` \(=-1\) must be positive"):
        import_dataset(source, "pdebench", FLOW, tmp_path / "d", Settings(boundary="periodic", dt=-1))
    with pytest.raises(FileNotFoundError, match="There is no dataset in"):
        export_dataset(source, "pdebench", tmp_path / "d")


def test_fields_are_written_under_their_own_names_by_default(finished, tmp_path):
    train, valid = export_dataset(finished, "pdebench", tmp_path / "out")
    ours = TrajectoryDataset(finished, "train")
    with h5py.File(train) as file:
        assert file["temperature"].shape == (5, 11, 8, 8)
        assert file["flux"].shape == (5, 11, 8, 8, 2)
        np.testing.assert_array_equal(file["flux"][3], ours.read(3)[:, 1:3].movedim(1, -1))
        np.testing.assert_allclose(file["wind"], ours.parameters[:, 1:3])
        assert file.attrs["conductivity"] == pytest.approx(0.02)
    mapping = {"temperature": "scalar", "flux": "vector"}
    again = import_dataset(valid, "pdebench", mapping, tmp_path / "again", Settings(boundary="periodic", split="valid"))
    np.testing.assert_array_equal(
        TrajectoryDataset(again, "valid").read(1), TrajectoryDataset(finished, "valid").read(1)
    )


def test_one_axis(tmp_path):
    root = import_dataset(
        pdebench_tensor(tmp_path / "a.h5"), "pdebench", {"tensor": "scalar"}, tmp_path / "d", PERIODIC
    )
    assert TrajectoryDataset(root, "train").read(0).shape == (4, 2, 8)
