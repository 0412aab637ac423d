"""Surrogates whose output obeys a law by construction."""

import json

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.admissible import PROJECTIONS, create_projections
from cliffsteer.coupling import Program
from cliffsteer.coupling.elsewhere import at
from cliffsteer.export import export
from cliffsteer.normalization import Normalization
from cliffsteer.testing import assert_equivariant
from cliffsteer.training.config import LossConfig
from cliffsteer.training.losses import create_loss

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])
LAWS = ["divergence_free:velocity", "preserve_mean:density", "positive:density"]
SCALES = {"density": 2.0, "velocity": 0.5}
MODEL = {"name": "csresnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}


def surrogate(laws=LAWS, grid=None, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        grid, model = grid or Grid((12, 12)), {**MODEL, **options}
        return Surrogate.create(model, SPEC, grid, 1.0, 1, 1, Normalization(SPEC, SCALES), projections=laws)


def frames(shape=(12, 12), dtype=torch.float32):
    x = torch.randn(3, 1, 4, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return x.masked_fill(~SPEC.occupied.view(-1, 1, 1), 0)


def step(model, x):
    with torch.no_grad():
        return model.step(x)


def divergence(out):
    """Spectral, relative to the gradient, (batch,)."""
    waves = torch.fft.fftfreq(out.shape[-1], dtype=torch.float64)
    k = torch.stack(torch.meshgrid(waves, waves, indexing="ij"))
    k = torch.where(k.abs() == 0.5, 0.0, k)
    spectrum = torch.fft.fft2(out[:, 0, 1:3].double())
    return (k * spectrum).sum(1).abs().flatten(1).amax(1) / spectrum.abs().flatten(1).amax(1)


def test_what_comes_out_obeys_its_laws():
    x, model = 0.01 * frames().abs(), surrogate()
    out = step(model, x)
    assert float(divergence(out).max()) < 1e-6
    assert float(divergence(step(surrogate([]), x)).min()) > 1e-2
    assert float(out[:, :, 0].min()) >= 0
    torch.testing.assert_close(out[:, :, 0].mean((-2, -1)), x[:, :, 0].mean((-2, -1)))
    assert float(step(surrogate(LAWS[:2]), x)[:, :, 0].min()) < 0  # without the last law


def test_training_sees_the_projected_output():
    x, model = frames(), surrogate(["divergence_free:velocity"])
    batch = {"history": x, "future": step(model, x), "parameters": torch.zeros(3, 0)}
    loss = create_loss(model, LossConfig())(model, batch, 0)["loss"]
    assert float(loss.detach()) < 1e-10
    batch["future"] = frames().flip(0)
    create_loss(model, LossConfig())(model, batch, 0)["loss"].backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_symmetries_stay():
    model = surrogate().double()
    assert_equivariant(lambda x: model(x, x.new_zeros(len(x), 0)), frames(dtype=torch.float64), SPEC.algebra)


def test_it_is_saved_with_its_laws(tmp_path):
    x, model = frames(), surrogate().eval()
    model.save_pretrained(tmp_path / "s")
    again = Surrogate.from_pretrained(tmp_path / "s")
    assert again.projection_names == LAWS
    assert torch.equal(step(again, x), step(model, x))
    config = json.loads((tmp_path / "s/config.json").read_text())
    del config["projections"]  # of before there were any
    (tmp_path / "s/config.json").write_text(json.dumps(config))
    assert torch.equal(step(Surrogate.from_pretrained(tmp_path / "s"), x), step(surrogate([]).eval(), x))


def test_it_is_exported_with_its_laws_or_refused(tmp_path):
    model = surrogate().eval()
    program = Program(export(model, tmp_path))
    torch.testing.assert_close(step(program, frames()), step(model, frames()), rtol=0, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"`any_grid` \(=True\): 'divergence_free:velocity' is for the grid it was made"
    ):
        export(model, tmp_path / "any", any_grid=True)
    with pytest.raises(ValueError, match="'divergence_free:velocity' is computed by waves"):
        export(model, tmp_path / "onnx", format="onnx")
    scalar = surrogate(["preserve_mean:density"]).eval()
    larger = Program(export(scalar, tmp_path / "any", any_grid=True)).at(Grid((16, 12)))
    assert step(larger, frames((16, 12))).shape == (3, 1, 4, 16, 12)


def test_on_another_grid_the_laws_are_those_of_that_grid():
    out = step(at(surrogate(), Grid((16, 16))), frames((16, 16)))
    assert float(divergence(out).max()) < 1e-6


def test_between_walls_a_velocity_is_that_of_faces():
    model = surrogate(["divergence_free:velocity"], Grid((12, 12), 1.0, "no_slip"))
    out = step(model, frames())
    again = model.projections[0](out)
    torch.testing.assert_close(again, out, rtol=0, atol=1e-5)
    assert float((step(surrogate([], model.grid), frames()) - out).abs().max()) > 0.01


@pytest.mark.parametrize("law", PROJECTIONS)
def test_every_law_has_a_name(law):
    field = "density" if law == "positive" else "velocity"
    (made,) = create_projections([f"{law}:{field}"], SPEC, Grid((8, 8)))
    assert made.field == field


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ("divergence_fre:velocity", "is unknown: did you mean 'divergence_free'"),
        ("positive", "names no dynamic field; write it as law:field"),
        ("positive:densty", "names no dynamic field: did you mean 'density'"),
        ("positive:velocity", "only scalars can be positive"),
    ],
)
def test_what_is_no_law_is_refused(law, message):
    with pytest.raises(ValueError, match=message):
        surrogate([law])
