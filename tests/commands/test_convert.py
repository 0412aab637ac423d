"""`cliffsteer convert`, called as the verb calls it."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from foreign_files import pdebench_flow

from cliffsteer.commands.convert import run
from cliffsteer.commands.errors import UsageError
from cliffsteer.datasets import TrajectoryDataset, verify


def config(**keys):
    defaults = {"signature": None, "split": "train", "batch": 4, "dt": None, "spacing": None, "boundary": "periodic"}
    defaults |= {"unit": "m", "time_unit": "s", "name": None, "progress": False, "format": "pdebench", "mapping": None}
    return OmegaConf.create(defaults | keys)


def test_there_and_back_with_a_mapping_in_a_file(tmp_path, caplog):
    pdebench_flow(tmp_path / "flow.hdf5")
    (tmp_path / "mapping.yaml").write_text("density: scalar\nvelocity: {grade: vector, from: [Vx, Vy], unit: m/s}\n")
    keys = {"mapping": str(tmp_path / "mapping.yaml")}
    run(config(source=str(tmp_path / "flow.hdf5"), out=str(tmp_path / "d"), **keys))
    assert verify(tmp_path / "d") == []
    assert TrajectoryDataset(tmp_path / "d", "train").spec["velocity"].unit == "m/s"
    run(config(source=str(tmp_path / "d"), out=str(tmp_path / "back"), **keys))
    run(config(source=str(tmp_path / "back"), out=str(tmp_path / "e"), **keys))
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["flow_train.hdf5"]
    shard = Path("train") / "shard_00000.hdf5"
    assert TrajectoryDataset(tmp_path / "e", "train").read(1).equal(TrajectoryDataset(tmp_path / "d", "train").read(1))
    assert (tmp_path / "e" / shard).is_file()


def test_a_mapping_on_the_command_line(tmp_path):
    pdebench_flow(tmp_path / "flow.hdf5")
    run(config(source=str(tmp_path / "flow.hdf5"), out=str(tmp_path / "d"), mapping={"pressure": "scalar"}))
    assert verify(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("nowhere.yaml", r"`mapping` \(='nowhere.yaml'\) is no file"),
        (["a"], r"`mapping` \(=\['a'\]\) must say for each"),
    ],
)
def test_no_mapping(mapping, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run(config(source=str(tmp_path), out=str(tmp_path / "d"), mapping=mapping))


@pytest.mark.parametrize("content", [b"a: [", b"\x89HDF\xff", b"12", b"a: ${b}"])
def test_a_mapping_that_is_no_yaml(content, tmp_path):
    (tmp_path / "m.yaml").write_bytes(content)
    with pytest.raises(
        UsageError, match=r"`mapping` \(='.*m\.yaml'\) cannot be read as YAML \(.+\): write lines such as"
    ):
        run(config(source=str(tmp_path), out=str(tmp_path / "d"), mapping=str(tmp_path / "m.yaml")))
