import json
import os
import shutil

import pytest
import torch
from torch import nn

from cliffsteer import Field, FieldSpec, Grid, Stepper, Surrogate, models, rollout
from cliffsteer.models import create
from cliffsteer.nn.freeze import freeze
from cliffsteer.normalization import Normalization
from cliffsteer.symmetry import lattice_symmetries

SPEC = FieldSpec(
    (1, 1),
    [
        Field("density", 0),
        Field("velocity", 1, "m/s"),
        Field("force", 1, "m/s^2", "parameter", (0.0, 0.5)),
        Field("viscosity", 0, "m^2/s", "parameter", (0.01,)),
    ],
)
GRID = Grid((8, 8), 0.5, "periodic")
SCALES = Normalization(
    SPEC,
    {"density": 2.0, "velocity": 0.5},
    {"density": 0.3},
    {"density": 0.2, "velocity": 0.05},
    {"force": 0.5, "viscosity": 0.01},
)
MODELS = {
    "csresnet": {"name": "csresnet", "hidden_channels": 3, "blocks": [1], "kernel_size": 3, "padding": "periodic"},
    "resnet": {"name": "resnet", "hidden_channels": 6, "blocks": [1], "kernel_size": 3, "padding": "periodic"},
}


def make(name="resnet", history=2, future=1, prediction="delta", normalization=SCALES):
    return Surrogate.create(MODELS[name], SPEC, GRID, 1.5, history, future, normalization, prediction).eval()


def frames(time=2, batch=3, dtype=torch.float32):
    x = torch.randn(batch, time, SPEC.n_blades, *GRID.shape, dtype=dtype)
    return x.masked_fill(~SPEC.occupied.view(-1, 1, 1), 0)


class Echo(nn.Module):
    """Records its input and answers with the channel asked for."""

    def __init__(self, channel, value=None):
        super().__init__()
        self.channel, self.value, self.seen = channel, value, None

    def forward(self, x):
        self.seen = x
        out = x[:, self.channel : self.channel + 1]
        return out if self.value is None else torch.full_like(out, self.value)


# ------------------------------------------------------------------------------------------------- prediction


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prediction", ["delta", "state"])
@pytest.mark.parametrize("future", [1, 2])
def test_step_returns_future_frames_and_nothing_on_undeclared_blades(name, prediction, future):
    surrogate = make(name, 2, future, prediction)
    assert isinstance(surrogate, Stepper)
    out = surrogate.step(frames(5), {"force": torch.randn(3, 2)})
    assert out.shape == (3, future, 4, 8, 8)
    assert out[:, :, 3].eq(0).all()
    assert out[:, :, :3].ne(0).any((0, 1, 3, 4)).all()


def test_network_sees_normalised_frames_and_constant_parameters():
    echo = Echo(0)
    surrogate = Surrogate(echo, SPEC, GRID, 1.5, 2, 1, SCALES, "state")
    x = frames()
    surrogate.step(x, {"force": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "viscosity": 0.02})
    assert echo.seen.shape == (3, 3, 4, 8, 8)
    torch.testing.assert_close(echo.seen[:, :2, 0], (x[:, :, 0] - 0.3) / 2.0)
    torch.testing.assert_close(echo.seen[:, :2, 1:3], x[:, :, 1:3] / 0.5)
    assert echo.seen[:, :2, 3].eq(0).all()
    parameters = torch.tensor([[2.0, 2.0, 4.0, 0.0], [2.0, 6.0, 8.0, 0.0], [2.0, 10.0, 12.0, 0.0]])
    torch.testing.assert_close(echo.seen[:, 2], parameters[:, :, None, None].expand(-1, -1, 8, 8))


def test_state_prediction_of_the_last_input_is_the_last_frame():
    x = frames()
    surrogate = Surrogate(Echo(1), SPEC, GRID, 1.5, 2, 1, SCALES, "state")
    torch.testing.assert_close(surrogate.step(x), x[:, 1:])


def test_delta_prediction_adds_scaled_changes_to_the_last_frame():
    x = frames()
    out = Surrogate(Echo(0, 1.0), SPEC, GRID, 1.5, 2, 1, SCALES).step(x) - x[:, 1:]
    torch.testing.assert_close(out[:, :, 0], torch.full_like(out[:, :, 0], 0.2))
    torch.testing.assert_close(out[:, :, 1:3], torch.full_like(out[:, :, 1:3], 0.05))
    assert out[:, :, 3].eq(0).all()


@pytest.mark.parametrize("prediction", ["delta", "state"])
def test_target_is_what_predict_must_return(prediction):
    surrogate = make(prediction=prediction, future=2)
    history, packed = frames(2), SPEC.pack_parameters(None, 3)
    future = surrogate(history, packed)
    target = surrogate.target(history, future)
    torch.testing.assert_close(target, surrogate.predict(history, packed), atol=1e-4, rtol=1e-4)


def test_undeclared_blades_of_the_input_do_not_matter():
    surrogate, x = make(), frames()
    dirty = x.clone()
    dirty[:, :, 3] = float("nan")
    assert torch.equal(surrogate.step(x), surrogate.step(dirty))


def test_every_parameter_and_every_frame_changes_the_output():
    surrogate, x = make(), frames()
    base = surrogate.step(x)
    assert not torch.allclose(base, surrogate.step(x, {"force": (0.3, 0.5)}))
    assert not torch.allclose(base, surrogate.step(x, {"viscosity": 0.05}))
    for i in range(2):
        changed = x.clone()
        changed[:, i, 0] += 1
        assert not torch.allclose(base - x[:, 1:], surrogate.step(changed) - changed[:, 1:])


def test_step_keeps_the_precision_of_its_input_and_rollout_feeds_back():
    surrogate = make(future=2)
    x = frames(dtype=torch.float64)
    assert surrogate.step(x).dtype == torch.float64
    out = rollout(surrogate, x, 3)
    first = surrogate.step(x)
    torch.testing.assert_close(out, torch.cat([first, surrogate.step(first)[:, :1]], 1))


def test_a_system_without_parameters_and_two_multivectors():
    spec = FieldSpec((1, -1, -1), [Field("a", 2), Field("b", 2), Field("c", 0)])
    model = {**MODELS["csresnet"], "padding": "zeros"}
    surrogate = Surrogate.create(model, spec, Grid((4, 5, 6)), 1.0, 2, 1, Normalization.identity(spec))
    x = torch.randn(2, 2, 16, 4, 5, 6)
    out = surrogate.step(x)
    assert out.shape == (2, 1, 16, 4, 5, 6)
    assert out.ne(0).any((0, 1, 3, 4, 5)).equal(spec.occupied)


def test_the_whole_surrogate_is_equivariant_with_its_parameters_and_a_plain_one_is_not():
    algebra, x = SPEC.algebra, frames(dtype=torch.float64)
    packed = torch.randn(3, 4, dtype=torch.float64)
    errors = {}
    for name in MODELS:
        surrogate = make(name).double().requires_grad_(False)
        reference = surrogate(x, packed)
        errors[name] = max(
            float((surrogate(g.act(algebra, x), g.turn(algebra, packed)) - g.act(algebra, reference)).norm())
            for g in lattice_symmetries(algebra, GRID)
        ) / float((reference - x[:, -1:]).norm())
    assert errors["csresnet"] < 1e-12
    assert errors["resnet"] > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": 0}, r"`history` \(=0\)"),
        ({"dt": 0.0}, r"`dt` \(=0.0\) must be positive"),
        ({"prediction": "detla"}, r"`prediction` \(='detla'\) must be 'delta' or 'state'"),
    ],
)
def test_constructor_refuses(change, message):
    arguments = {"dt": 1.0, "history": 1, "future": 1, "normalization": SCALES} | change
    with pytest.raises(ValueError, match=message):
        Surrogate(Echo(0), SPEC, GRID, **arguments)


def test_step_refuses_frames_and_parameters_that_do_not_fit():
    surrogate = make()
    with pytest.raises(ValueError, match=r"`frames` holds 1 frame\(s\), but the stepper reads 2"):
        surrogate.step(frames(1))
    with pytest.raises(ValueError, match="the axes after"):
        surrogate.step(frames()[..., :4])
    with pytest.raises(ValueError, match="no field 'gravity'"):
        surrogate.step(frames(), {"gravity": 1.0})


# -------------------------------------------------------------------------------------------- saving, loading


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
    assert config["format_version"] == 1
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
    with pytest.raises(ValueError, match=r"format version 99, this cliffsteer reads version 1: .* \(7.0\)"):
        Surrogate.from_pretrained(saved[1])


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


@pytest.mark.parametrize("name", ["csresnet", "resnet", "csunet", "unet", "clifford_resnet"])
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
