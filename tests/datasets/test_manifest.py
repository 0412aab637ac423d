import json

import pytest

from cliffsteer.datasets import Recipe, generate, read_manifest, verify
from cliffsteer.datasets.manifest import Manifest


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_manifest_survives_a_round_trip(finished, recipe):
    manifest = read_manifest(finished)
    assert manifest.complete
    assert manifest.recipe == recipe
    assert manifest.options["conductivity"] == 0.02  # a default of the solver
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


def test_a_sound_dataset_has_no_problems(finished):
    assert verify(finished) == []


def test_every_kind_of_damage_is_found(dataset, recipe):
    train = dataset / "train"
    size = (train / "shard_00000.hdf5").stat().st_size
    flip(train / "shard_00000.hdf5", size - 5)
    (train / "shard_00001.hdf5").write_bytes((train / "shard_00001.hdf5").read_bytes()[:-1])
    (train / "shard_00002.hdf5").unlink()
    (dataset / "valid" / "shard_00007.hdf5").write_bytes(b"")
    problems = verify(dataset)
    assert len(problems) == 4
    for words in (
        "train/shard_00000.hdf5 differs from its checksum",
        f"train/shard_00001.hdf5 has {size - 1} bytes instead of {size}, so it is truncated",
        "train/shard_00002.hdf5 is missing",
        "valid/shard_00007.hdf5 does not belong to the dataset",
    ):
        assert any(words in problem for problem in problems)
    (dataset / "valid" / "shard_00007.hdf5").unlink()
    generate(recipe, dataset, progress=False)
    assert verify(dataset) == []


def test_a_shard_of_another_recipe_is_found(dataset, recipe, tmp_path):
    other = Recipe(**{**recipe.to_dict(), "seed": 4})
    generate(other, tmp_path / "other", progress=False)
    manifest = json.loads((dataset / "dataset.json").read_text())
    manifest["shards"] = json.loads((tmp_path / "other" / "dataset.json").read_text())["shards"]
    (dataset / "dataset.json").write_text(json.dumps(manifest))
    for split in ("train", "valid"):
        for path in (tmp_path / "other" / split).iterdir():
            path.rename(dataset / split / path.name)
    assert all("comes from another recipe" in problem for problem in verify(dataset))
    assert len(verify(dataset)) == 4


def test_no_dataset_and_a_damaged_one(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset in .*nothing \(dataset.json is missing\)"):
        verify(tmp_path / "nothing")
    path = dataset / "dataset.json"
    text = path.read_text()
    path.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ValueError, match="format version 9, this cliffsteer reads 1"):
        verify(dataset)
    for bad in (text[: len(text) // 2], text.replace('"dt"', '"td"'), "[]"):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"dataset\.json is damaged"):
            verify(dataset)
