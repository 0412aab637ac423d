import json
import logging
import shutil
from types import SimpleNamespace

import pytest

from cliffsteer.datasets import generate, read_manifest, verify


def rewrite(root, **changes):
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_going_on_with_other_versions_is_warned_of(dataset, recipe, caplog):
    rewrite(dataset, software="0.0.1", packages={"torch": "1.0", "gone": "3"})
    generate(recipe, dataset, progress=False)
    assert caplog.messages == []  # nothing was made
    (dataset / "train" / "shard_00001.hdf5").unlink()
    generate(recipe, dataset, progress=False)
    (told,) = (text for text in caplog.messages if "other versions" in text)
    assert "was begun with other versions (cliffsteer 0.0.1 there, " in told
    assert "torch 1.0 there, " in told
    assert "gone" not in told


def test_a_shard_made_again_to_other_bytes_is_warned_of(dataset, recipe, caplog):
    entry = read_manifest(dataset).shards["valid"][0]
    shards = json.loads((dataset / "dataset.json").read_text())["shards"]
    shards["valid"][0]["sha256"] = "0" * 64  # as if another processor had made it
    rewrite(dataset, shards=shards)
    caplog.set_level(logging.WARNING)
    generate(recipe, dataset, progress=False)
    (told,) = caplog.messages
    assert (
        f"shard_00000.hdf5 was made again, but with other bytes than before (sha256 {'0' * 64}, now {entry.sha256}"
        in told
    )
    assert read_manifest(dataset).shards["valid"][0] == entry
    assert verify(dataset) == []


@pytest.mark.parametrize(("free", "told"), [(0, "0.0 kB"), (2_500_000, "2.5 MB")])
def test_space_is_told_in_a_unit_that_shows_it(free, told, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    large = type(recipe)(**{**recipe.to_dict(), "frames": 2000})
    message = rf"No space for the dataset: 10\.8 MB are still to be written to .*d, where {told} are free; free some"
    with pytest.raises(OSError, match=message):
        generate(large, tmp_path / "d", progress=False)
