import hashlib
import json
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from advected_heat import AdvectedHeat
from omegaconf import OmegaConf

import cliffsteer
from cliffsteer.commands.verify import run
from cliffsteer.datasets import Recipe, generate, read_manifest, verify
from cliffsteer.datasets.manifest import Manifest, plan_shards
from cliffsteer.datasets.software import check_versions, packages
from cliffsteer.solvers import create


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


def test_versions_are_those_of_torch_and_of_what_a_plugin_is_installed_from(finished, dataset, tmp_path, monkeypatch):
    assert read_manifest(finished).packages == {"torch": torch.__version__}  # this plugin is not installed
    (tmp_path / "heat_plugin-1.5.dist-info").mkdir()
    folder = tmp_path / "heat_plugin-1.5.dist-info"
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: heat-plugin\nVersion: 1.5\n")
    (folder / "entry_points.txt").write_text("[cliffsteer.solvers]\nadvected_heat = advected_heat:AdvectedHeat\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packages(AdvectedHeat()) == {"torch": version("torch"), "heat-plugin": "1.5"}
    assert packages(create("smoke_phiflow", resolution=8)) == {"torch": version("torch"), "phiflow": version("phiflow")}
    data = json.loads((dataset / "dataset.json").read_text())
    del data["packages"]  # an older manifest
    (dataset / "dataset.json").write_text(json.dumps(data))
    assert verify(dataset) == []
    assert read_manifest(dataset) == replace(read_manifest(finished), packages={})


def test_other_versions_of_what_the_solver_computes_with_are_refused():
    solver = create("smoke_phiflow", resolution=8)
    expected = {"cliffsteer": cliffsteer.__version__, **packages(solver)}
    check_versions(expected, solver)
    with pytest.raises(ValueError, match=r"has cliffsteer .* and phiflow .*, but this process .* and phiflow 1\.0:"):
        check_versions(expected | {"phiflow": "1.0"}, solver)


def test_options_that_a_solver_inherits_have_their_defaults_too(tmp_path):
    recipe = Recipe("maxwell3d_pdearena", {"resolution": 4, "downsample": 1}, {"train": 1}, frames=1)
    options = read_manifest(generate(recipe, tmp_path / "d", progress=False, card=False)).options
    assert (options["resolution"], options["permittivity"]) == (4, 10.0)  # its own
    assert (options["substeps"], options["smoothness"], options["boundary"]) == (1, 2.0, "periodic")  # inherited


def test_shards_are_planned_in_order():
    shards = plan_shards(Recipe("any", splits={"train": 5, "valid": 1}, batch=2))
    assert [entry.trajectories for entry in shards["train"]] == [(0, 2), (2, 4), (4, 5)]
    assert [entry.file for entry in shards["valid"]] == ["valid/shard_00000.hdf5"]


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


def test_a_checksum_beside_a_finished_shard_counts_for_nothing(dataset, recipe):
    path = dataset / "train" / "shard_00000.hdf5"
    manifest = (dataset / "dataset.json").read_bytes()
    beside = path.with_name(path.name + ".sha256")
    beside.write_text("0" * 64 + "  shard_00000.hdf5\n")
    assert verify(dataset) == []
    generate(recipe, dataset, progress=False)
    assert not beside.exists()
    assert (dataset / "dataset.json").read_bytes() == manifest
    flip(path, path.stat().st_size - 5)
    beside.write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "  shard_00000.hdf5\n")
    assert verify(dataset) == [
        f"{path} differs from its checksum, so it was altered: run the same `cliffsteer generate` again."
    ]


def test_a_failed_shard_is_told_once_with_what_helps(tmp_path, capsys):
    recipe = Recipe("advected_heat", {"cells": 4, "limit": 0.3}, {"train": 6}, frames=3, batch=2, seed=1)
    with pytest.raises(ValueError, match="more `retries`"):
        generate(recipe, tmp_path / "d", progress=False, retries=0)
    failures = read_manifest(tmp_path / "d").failures
    told = f"{tmp_path / 'd'} is unfinished: run the same `cliffsteer generate` again with more `retries`."
    assert verify(tmp_path / "d") == [*failures.values(), told]
    with pytest.raises(ValueError, match=r"the `cliffsteer generate` that made it, with more `retries`, makes damaged"):
        run(OmegaConf.create({"run": None, "root": str(tmp_path / "d")}))
    assert "is missing" not in capsys.readouterr().out


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
