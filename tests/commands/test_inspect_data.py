"""`cliffsteer inspect data`, called as the verb calls it."""

import pytest
from omegaconf import OmegaConf

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.inspect_data import data
from cliffsteer.datasets import Recipe, generate


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    recipe = Recipe("smoke", {"resolution": 8, "dt": 3.0}, {"train": 2, "test": 1}, frames=4, batch=2)
    return generate(recipe, tmp_path_factory.mktemp("data") / "smoke", progress=False, card=False)


def config(**keys):
    defaults = {"root": None, "split": "test", "trajectory": 0, "field": None, "out": None}
    return OmegaConf.create(defaults | keys)


def test_a_table_on_stdout_and_pictures_in_a_folder(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data(config(root=str(root)))
    assert (tmp_path / "runs" / "data-smoke" / "animation.gif").is_file()
    text = capsys.readouterr().out
    assert "split test: 1 trajectories of 4 frames, 3 s apart, on 8 x 8 cells" in text
    assert "\nvelocity                        m/s" in text
    assert "\ntotal density " in text
    data(config(root=str(root), split=None, trajectory=1, field="velocity", out="look"))
    assert (tmp_path / "look" / "inspection.json").is_file()
    assert "split train: 2 trajectories" in capsys.readouterr().out


def test_mistakes(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="`root` is missing: give it as `cliffsteer inspect data root="):
        data(config())
    with pytest.raises(ValueError, match=r"`split` \(='valid'\) is not in .*: choose from 'train', 'test'"):
        data(config(root=str(root), split="valid"))
    assert not list(tmp_path.iterdir())
