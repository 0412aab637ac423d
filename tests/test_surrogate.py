"""What a surrogate predicts, from what."""

import pytest
import torch
from small_surrogate import GRID, MODELS, SCALES, SPEC, frames, make
from torch import nn

from cliffsteer import Field, FieldSpec, Grid, Stepper, Surrogate, rollout
from cliffsteer.normalization import Normalization
from cliffsteer.symmetry import lattice_symmetries


class Echo(nn.Module):
    """Records its input and answers with the channel asked for."""

    def __init__(self, channel, value=None):
        super().__init__()
        self.channel, self.value, self.seen = channel, value, None

    def forward(self, x):
        self.seen = x
        out = x[:, self.channel : self.channel + 1]
        return out if self.value is None else torch.full_like(out, self.value)


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
