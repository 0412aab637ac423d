"""Saving and loading surrogates: what comes back, and what is refused."""

import json
import os
import shutil

import pytest
import torch
from small_surrogate import GRID, MODELS, SCALES, SPEC, frames, make

from cliffsteer import Surrogate, models
from cliffsteer.models import create
from cliffsteer.nn.freeze import freeze


@pytest.fixture
def saved(tmp_path):
    surrogate = make("csresnet")
    return surrogate, surrogate.save_pretrained(tmp_path / "surrogate", {"steps": 3}, {"valid/loss": 0.5})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_and_loaded_gives_the_same_output_bit_for_bit(tmp_path, name, dtype):
    surrogate = make(name).to(dtype)
    loaded = Surrogate.from_pretrained(surrogate.save_pretrained(tmp_path / "s"))
    x, parameters = frames(dtype=dtype), {"force": torch.randn(3, 2), "viscosity": 0.3}
    assert torch.equal(surrogate.step(x, parameters), loaded.step(x, parameters))
    assert loaded.dtype == dtype
    assert (loaded.spec, loaded.grid, loaded.dt) == (SPEC, GRID, 1.5)
    assert (loaded.history, loaded.future, loaded.prediction) == (2, 1, "delta")
    assert loaded.normalization.to_dict() == SCALES.to_dict()
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_config_is_readable_and_keeps_training_and_metrics(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "cliffsteer.surrogate"
    assert config["format_version"] == 2
    assert config["model"]["name"] == "csresnet"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded = Surrogate.from_pretrained(folder)
    assert loaded.training_config == {"steps": 3}
    assert loaded.metrics == {"valid/loss": 0.5}
    again = Surrogate.from_pretrained(loaded.save_pretrained(folder.with_name("again")))
    assert again.training_config == {"steps": 3}


def test_saving_over_an_older_surrogate_replaces_it_and_keeps_other_files(saved):
    _, folder = saved
    (folder / "README.md").write_text("a model card")
    other = make("resnet")
    other.save_pretrained(folder)
    assert Surrogate.from_pretrained(folder).model["name"] == "resnet"
    assert (folder / "README.md").read_text() == "a model card"
    assert [path.name for path in folder.parent.iterdir()] == ["surrogate"]


def test_names_of_the_registry_survive_moves_of_classes(saved, monkeypatch):
    surrogate, folder = saved
    config = (folder / "config.json").read_text()
    assert "cliffsteer.models" not in config  # no path to a class, only names
    assert "CSResNet" not in config

    class Moved(models.MODELS["csresnet"]):
        """The same network under another name, in another module."""

    monkeypatch.setitem(models.MODELS, "csresnet", Moved)
    loaded = Surrogate.from_pretrained(folder)
    assert type(loaded.network) is Moved
    x = frames()
    assert torch.equal(loaded.step(x), surrogate.step(x))
    monkeypatch.setitem(models.MODELS, "new_name", Moved)  # the old name stays, as an alias
    renamed = Surrogate.from_pretrained(folder)
    renamed.model["name"] = "new_name"
    again = Surrogate.from_pretrained(renamed.save_pretrained(folder.with_name("renamed")))
    assert torch.equal(again.step(x), surrogate.step(x))


def test_a_failed_save_leaves_the_old_surrogate(saved):
    surrogate, folder = saved
    x = frames()
    before = surrogate.step(x)
    surrogate.dt = float("nan")  # JSON refuses it
    with pytest.raises(ValueError, match="JSON compliant"):
        surrogate.save_pretrained(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["surrogate"]
    assert torch.equal(Surrogate.from_pretrained(folder).step(x), before)


def test_a_full_disk_leaves_the_old_surrogate(saved):
    import resource

    surrogate, folder = saved
    before = surrogate.step(x := frames())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(OSError, match=r"model.safetensors|large"):
            make("resnet").save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in folder.parent.iterdir()] == ["surrogate"]
    assert torch.equal(Surrogate.from_pretrained(folder).step(x), before)


def test_save_refuses_a_folder_with_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="exists and holds no surrogate"):
        make().save_pretrained(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_save_needs_the_model_description(tmp_path):
    network = create("resnet", SPEC.algebra, 3, 1, hidden_channels=4, blocks=[1])
    surrogate = Surrogate(network, SPEC, GRID, 1.0, 2, 1, SCALES)
    with pytest.raises(ValueError, match="`model` is not known"):
        surrogate.save_pretrained(tmp_path / "s")
    assert not (tmp_path / "s").exists()


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` \(=.*nowhere\) does not exist"):
        Surrogate.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(saved, name):
    (saved[1] / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}` is missing"):
        Surrogate.from_pretrained(saved[1])


def test_another_format_version(saved):
    edit(saved[1], format_version=99, cliffsteer_version="7.0")
    with pytest.raises(ValueError, match=r"format version 99, this cliffsteer reads versions 1 to 2: .* \(7.0\)"):
        Surrogate.from_pretrained(saved[1])


def test_options_are_written_with_their_defaults(saved):
    told = json.loads((saved[1] / "config.json").read_text())["model"]
    assert told == json.loads(json.dumps(models.with_defaults(saved[0].model)))
    assert (told["kernel_size"], told["norm"], told["strategy"]) == (saved[0].model["kernel_size"], "group", "auto")


@pytest.mark.parametrize("told", [{}, {"norm": "group"}], ids=str)
def test_files_of_version_1_have_the_defaults_of_then(saved, told):
    """They left out options that had their default, and the norm was that of each point."""
    edit(saved[1], format_version=1, model={**saved[0].model, **told})
    assert Surrogate.from_pretrained(saved[1]).model["norm"] == told.get("norm", "layer")


def test_another_format(saved):
    edit(saved[1], format="somebody.else")
    with pytest.raises(ValueError, match="describes no cliffsteer surrogate"):
        Surrogate.from_pretrained(saved[1])


@pytest.mark.parametrize("key", ["model", "spec", "grid", "dt", "history", "normalization", "dtype"])
def test_a_config_that_lacks_an_entry(saved, key):
    path = saved[1] / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config.json` is damaged: KeyError '{key}'"):
        Surrogate.from_pretrained(saved[1])


def test_a_config_cut_short(saved):
    path = saved[1] / "config.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"config.json` is damaged"):
        Surrogate.from_pretrained(saved[1])


@pytest.mark.parametrize("keep", [0, 4, 200, -8])
def test_weights_cut_short(saved, keep):
    path = saved[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors` is damaged or cut short"):
        Surrogate.from_pretrained(saved[1])


@pytest.mark.parametrize("option", [{"hidden_channels": 4}, {"blocks": [2]}])
def test_weights_of_another_model(saved, option):
    edit(saved[1], model={**MODELS["csresnet"], **option})
    with pytest.raises(ValueError, match=r"does not fit the model in config.json: \d+ weight\(s\) differ"):
        Surrogate.from_pretrained(saved[1])


def test_a_flipped_byte_in_the_weights(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors` is damaged or cut short: it differs from its checksum"):
        Surrogate.from_pretrained(folder)


def test_the_files_are_readable_by_others_as_the_umask_says(saved):
    _, folder = saved
    mask = os.umask(0)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~mask}


def test_an_unknown_model(saved):
    edit(saved[1], model={**MODELS["csresnet"], "name": "csresnett"})
    with pytest.raises(ValueError, match="csresnett"):
        Surrogate.from_pretrained(saved[1])


def test_a_copied_folder_loads(saved, tmp_path):
    surrogate, folder = saved
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    x = frames()
    assert torch.equal(Surrogate.from_pretrained(str(copy)).step(x), surrogate.step(x))


def test_a_frozen_network_keeps_its_precision_and_is_not_saved(tmp_path):
    surrogate = make("csresnet").double()
    surrogate.network = freeze(surrogate.network)
    assert surrogate.dtype == torch.float64
    with pytest.raises(ValueError, match="`network` is frozen and cannot be trained on"):
        surrogate.save_pretrained(tmp_path / "frozen")


@pytest.mark.parametrize("name", ["csresnet", "resnet", "csunet", "unet", "clifford_resnet", "steerable_resnet"])
def test_padding_is_that_of_the_grid(name, tmp_path):
    small = {"name": name, "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    made = [
        Surrogate.create({**small, "padding": padding}, SPEC, GRID, 0.1, 1, 1, SCALES)
        for padding in ("grid", "periodic")
    ]
    made[1].load_state_dict(made[0].state_dict())
    loaded = Surrogate.from_pretrained(made[0].save_pretrained(tmp_path / name))
    frames = torch.randn(1, 1, 4, 8, 8)
    assert torch.equal(made[0].step(frames), made[1].step(frames))
    assert torch.equal(made[0].eval().step(frames), loaded.step(frames))
