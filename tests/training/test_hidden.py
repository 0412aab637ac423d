"""Parameters that a network does not read, and what that costs of its symmetry."""

import json

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.normalization import Normalization
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.training import train

SPEC = FieldSpec(
    (1, 1),
    [
        Field("height", 0, "m"),
        Field("velocity", 1, "m/s"),
        Field("coriolis", 2, "1/s", "parameter", (1.0,)),
        Field("gravity", 0, "m/s^2", "parameter", (1.0,)),
    ],
)
SCALES = {"height": 1.0, "velocity": 1.0}
MODEL = {"name": "csresnet", "hidden_channels": 3, "blocks": [1], "kernel_size": 3, "padding": "periodic"}


def surrogate(hidden=(), **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scales = Normalization(SPEC, SCALES)
        return Surrogate.create(MODEL | options, SPEC, Grid((8, 8)), 1.0, 1, 1, scales, hidden=hidden).double()


def frames():
    x = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.masked_fill(~SPEC.occupied.view(-1, 1, 1), 0)


def step(model, coriolis=1.0, gravity=1.0, x=None):
    with torch.no_grad():
        return model.step(frames() if x is None else x, {"coriolis": coriolis, "gravity": gravity})


def test_what_is_hidden_makes_no_difference_and_the_rest_does():
    seen, blind = surrogate(), surrogate(["coriolis"])
    assert torch.equal(step(blind), step(blind, coriolis=-3.0))
    assert not torch.allclose(step(seen), step(seen, coriolis=-3.0))
    for model in (seen, blind):
        assert not torch.allclose(step(model), step(model, gravity=2.0))
    assert torch.equal(step(blind), step(seen, coriolis=0.0))


@pytest.mark.parametrize("group", ["O", "SO"])
def test_a_network_that_does_not_read_the_sense_of_rotation_needs_the_smaller_group(group):
    # A mirror image of the flow is none of the same rotation: only kernels of SO can tell one from the other.
    model = surrogate(["coriolis"], kernel="complete", kernel_options={"group": group})
    for g in lattice_symmetries(SPEC.algebra):
        error = (step(model, x=g.act(SPEC.algebra, frames())) - g.act(SPEC.algebra, step(model))).abs().max()
        if group == "O" or torch.det(g.matrix) > 0:
            assert error < 1e-12
        else:
            assert error > 1e-3


def test_it_is_saved_and_told(tmp_path):
    model = surrogate(["coriolis"])
    again = Surrogate.from_pretrained(model.save_pretrained(tmp_path / "blind"))
    assert again.hidden == ["coriolis"]
    assert torch.equal(step(again), step(model))
    assert "| coriolis | 2 (pseudoscalar) | 1/s | parameter, not read |" in (tmp_path / "blind/README.md").read_text()
    path = tmp_path / "blind/config.json"
    config = json.loads(path.read_text())
    del config["hidden"]  # of before there was such a thing
    path.write_text(json.dumps(config))
    assert Surrogate.from_pretrained(tmp_path / "blind").hidden == []


def test_a_name_that_is_no_parameter_is_refused():
    with pytest.raises(ValueError, match=r"`hidden` names 'velocity', which is no parameter .* coriolis, gravity"):
        surrogate(["velocity"])
    with pytest.raises(ValueError, match="Did you mean 'coriolis'"):
        surrogate(["coriolos"])


def test_a_training_hides_it(small, tmp_path):
    config = small(steps=2, rollout_steps=0)
    config.data.hidden = ["buoyancy"]
    assert Surrogate.from_pretrained(train(config, tmp_path / "run") / "surrogate").hidden == ["buoyancy"]
