import json

import numpy as np
import pytest
from PIL import Image

from cliffsteer.datasets import Recipe, TrajectoryDataset, generate
from cliffsteer.datasets.inspection import inspect_dataset
from cliffsteer.datasets.spectra import isotropic_spectra


def test_it_writes_pictures_an_animation_and_numbers(finished, tmp_path):
    valid = TrajectoryDataset(finished, "valid")
    result = inspect_dataset(valid, tmp_path / "look", trajectory=1, field="flux")
    assert {path.name for path in (tmp_path / "look").iterdir()} == {*result["files"], "inspection.json"}
    assert json.loads((tmp_path / "look" / "inspection.json").read_text()) == result
    for name in result["files"]:
        with Image.open(tmp_path / "look" / name) as image:
            assert getattr(image, "n_frames", 1) == (11 if name == "animation.gif" else 1)
    assert set(result["fields"]) == {"temperature", "flux"}
    assert {"heat", "square flux", "total temperature"} <= set(result["drifts"])
    first = [isotropic_spectra(valid.spec, valid.grid, valid.read(i, 0, 1)[None])[1]["flux"][0, 0] for i in range(2)]
    np.testing.assert_allclose(result["spectra"]["flux"][0], np.mean(first, 0))
    assert len(result["spectra"]["flux"]) == 3  # first, middle, last


def test_one_axis_and_one_frame_have_no_animation_but_all_else(tmp_path):
    recipe = Recipe("advected_heat", {"cells": 8, "dim": 1}, {"only": 1}, frames=1)
    root = generate(recipe, tmp_path / "d", progress=False)
    result = inspect_dataset(TrajectoryDataset(root, "only"), tmp_path / "look")
    assert result["files"] == ["frames.png", "spectra.png", "kept.png"]
    assert result["fields"]["flux"]["change"] is None


def test_what_is_not_there_is_refused(finished, tmp_path):
    train = TrajectoryDataset(finished, "train")
    with pytest.raises(ValueError, match=r"`trajectory` \(=5\) is not in 0\.\.4, those of split 'train'"):
        inspect_dataset(train, tmp_path / "look", trajectory=5)
    with pytest.raises(ValueError, match="No field 'heat'"):
        inspect_dataset(train, tmp_path / "look", field="heat")
    with pytest.raises(ValueError, match=r"`field` \(='wind'\) is a parameter"):
        inspect_dataset(train, tmp_path / "look", field="wind")
    assert not (tmp_path / "look").exists()
