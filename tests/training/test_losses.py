import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.normalization import Normalization
from cliffsteer.training.config import LossConfig
from cliffsteer.training.losses import create_loss

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])
SCALES = {"density": 2.0, "velocity": 10.0}
DELTAS = {"density": 0.5, "velocity": 4.0}


class Growth(torch.nn.Module):
    """Multiplies the last multivector by a learned number: a network whose rollouts can be written down."""

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.seen = []

    def forward(self, x):
        self.seen.append(torch.is_grad_enabled())
        return self.factor * x[:, -1:]


def make(factor=1.0, normalization=None, prediction="state", history=1):
    normalization = normalization or Normalization.identity(SPEC)
    return Surrogate(Growth(factor), SPEC, Grid((4, 4)), 1.0, history, 1, normalization, prediction)


def windows(*values, history=1, batch=1):
    """Frames whose fields are all one number each moment: density a, velocity (a, 0)."""
    frames = torch.zeros(batch, len(values), 4, 4, 4)
    frames[:, :, :2] = torch.tensor(values).view(1, -1, 1, 1, 1)
    return {"history": frames[:, :history], "future": frames[:, history:], "parameters": torch.zeros(batch, 0)}


# ---------------------------------------------------------------------------------------------------- criteria


def test_one_step_in_normalised_and_in_physical_units():
    batch = windows(1.0, 3.0)
    surrogate = make(1.0, Normalization(SPEC, SCALES, deltas=DELTAS), "state")  # stays at 1: an error of 2
    density, velocity = 4.0, 4.0 / 2  # of two components one is wrong
    parts = create_loss(surrogate, LossConfig())(surrogate, batch, 0)
    assert parts["loss"].item() == pytest.approx((density / 4 + velocity / 100) / 2)
    assert parts["mse_velocity"].item() == pytest.approx(velocity / 100)
    parts = create_loss(surrogate, LossConfig(units="physical"))(surrogate, batch, 0)
    assert parts["loss"].item() == pytest.approx((density + velocity) / 2)
    weights = {"density": 3.0, "velocity": 1.0}
    parts = create_loss(surrogate, LossConfig(units="physical", weights=weights))(surrogate, batch, 0)
    assert parts["loss"].item() == pytest.approx((3 * density + velocity) / 4)
    assert parts["mse_density"].item() == pytest.approx(density)


def test_changes_are_measured_by_their_own_scale():
    surrogate = make(0.0, Normalization(SPEC, SCALES, deltas=DELTAS), "delta")
    loss = create_loss(surrogate, LossConfig(weights={"velocity": 0.0}))(surrogate, windows(1.0, 3.0), 0)["loss"]
    assert loss.item() == pytest.approx(4.0 / 0.25)


def test_physics_terms_are_weighed_and_told():
    surrogate = make(1.0, Normalization(SPEC, SCALES))
    config = LossConfig(energy=0.5, sobolev=2.0, divergence=1.0, spectral=1.0)
    parts = create_loss(surrogate, config)(surrogate, windows(1.0, 3.0), 0)
    # |f|² / s²: density 1/4 instead of 9/4, velocity 1/100 instead of 9/100; constant fields have no gradient
    energy = (2.0**2 + 0.08**2) / 2
    assert parts["energy"].item() == pytest.approx(energy)
    assert parts["sobolev"].item() == parts["divergence"].item() == 0
    assert parts["spectral"].item() == pytest.approx(0, abs=1e-8)
    mse = (parts["mse_density"] + parts["mse_velocity"]).item() / 2
    assert parts["loss"].item() == pytest.approx(mse + 0.5 * energy)
    physical = create_loss(surrogate, LossConfig(units="physical", energy=1.0))(surrogate, windows(1.0, 3.0), 0)
    assert physical["energy"].item() == pytest.approx(64.0)


@pytest.mark.parametrize("term", ["divergence", "sobolev", "energy", "spectral"])
def test_every_term_trains(term, generator):
    model = {"name": "csresnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(model, SPEC, Grid((8, 8)), 1.0, 1, 1, Normalization.identity(SPEC))
    frames = torch.randn(2, 2, 4, 8, 8, generator=generator)
    batch = {"history": frames[:, :1], "future": frames[:, 1:], "parameters": torch.zeros(2, 0)}
    parts = create_loss(surrogate, LossConfig(**{term: 1.0}))(surrogate, batch, 0)
    assert parts[term].item() > 0
    gradient = torch.autograd.grad(parts[term], list(surrogate.parameters()))
    assert all(torch.isfinite(g).all() for g in gradient)
    assert any(g.ne(0).any() for g in gradient)


def test_a_mixed_precision_leaves_the_loss_in_float32():
    surrogate = make(1.0)
    batch = windows(1.0, 1.001, batch=3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = create_loss(surrogate, LossConfig(sobolev=1.0))(surrogate, batch, 0)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((1e-6 + 0.5e-6) / 2, rel=1e-3)


# ------------------------------------------------------------------------------------------------- several calls


def test_pushforward_has_the_gradient_of_its_last_call_alone():
    surrogate = make(1.5)
    loss = create_loss(surrogate, LossConfig("pushforward", unroll=3))
    value = loss(surrogate, windows(1.0, 7.0, 7.0, 7.0), 0)["loss"]
    value.backward()
    # a³ against 7, but the gradient sees a·b with b = a² held fixed: d/da (ab − 7)² = 2 (a³ − 7) a²
    a, share = 1.5, (1 + 0.5) / 2
    assert value.item() == pytest.approx((a**3 - 7) ** 2 * share)
    assert surrogate.network.factor.grad.item() == pytest.approx(2 * (a**3 - 7) * a**2 * share)
    assert surrogate.network.seen == [False, False, True]


@pytest.mark.parametrize("name", ["resnet", "csresnet"])
def test_pushforward_reaches_every_weight_in_mixed_precision(name, generator):
    model = {"name": name, "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(model, SPEC, Grid((8, 8)), 1.0, 1, 1, Normalization.identity(SPEC))
    frames = torch.randn(2, 3, 4, 8, 8, generator=generator)
    batch = {"history": frames[:, :1], "future": frames[:, 1:], "parameters": torch.zeros(2, 0)}
    with torch.autocast("cpu", torch.bfloat16):
        value = create_loss(surrogate, LossConfig("pushforward", unroll=2))(surrogate, batch, 0)["loss"]
    value.backward()
    assert all(weight.grad is not None for weight in surrogate.parameters())


@pytest.mark.parametrize("detach", [0, 1, 2])
def test_unrolled_has_the_gradient_of_all_calls_back_to_the_last_cut(detach):
    surrogate = make(1.5)
    value = create_loss(surrogate, LossConfig("unrolled", unroll=3, detach=detach))(
        surrogate, windows(1.0, 7.0, 7.0, 7.0), 0
    )["loss"]
    value.backward()
    a, share = 1.5, 0.75 / 3
    powers = {0: (1, 2, 3), 1: (1, 1, 1), 2: (1, 2, 1)}[detach]  # calls that the gradient goes through
    expected = sum(2 * (a**n - 7) * power * a ** (n - 1) for n, power in enumerate(powers, 1)) * share
    assert value.item() == pytest.approx(sum((a**n - 7) ** 2 for n in (1, 2, 3)) * share)
    assert surrogate.network.factor.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize("prediction", ["delta", "state"])
def test_calls_follow_the_rollout_of_the_surrogate(prediction, generator):
    means, shape = {"density": 3.0}, (2, 5, 4, 4, 4)
    normalization = Normalization(SPEC, SCALES, means, DELTAS)
    surrogate = make(0.3, normalization, prediction, history=2)
    frames = torch.randn(shape, generator=generator).masked_fill(~surrogate.occupied, 0)
    batch = {"history": frames[:, :2], "future": frames[:, 2:], "parameters": torch.zeros(2, 0)}
    loss = create_loss(surrogate, LossConfig("unrolled", unroll=3, units="physical"))
    from cliffsteer import rollout

    expected = (rollout(surrogate, frames[:, :2], 3) - frames[:, 2:]).square().mean((0, 3, 4))
    value = loss(surrogate, batch, 0)["loss"]
    torch.testing.assert_close(value, (expected[:, 0] / 2 + expected[:, 1:3].mean(1) / 2).mean())


def test_the_calls_grow_evenly():
    surrogate = make()
    loss = create_loss(surrogate, LossConfig("unrolled", unroll=4, curriculum=30))
    assert [loss.length(step) for step in (0, 9, 10, 19, 20, 29, 30, 1000)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert create_loss(surrogate, LossConfig("unrolled", unroll=4)).length(0) == 4
    loss(surrogate, windows(1.0, 1.0, 1.0, 1.0, 1.0), 15)
    assert len(surrogate.network.seen) == 2


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"velocty": 1.0}, r"`loss.weights` names 'velocty', .* density, velocity\. Did you mean 'velocity'\?"),
        ({"density": 0, "velocity": 0}, r"`loss.weights` is 0 for every field"),
    ],
)
def test_refusals(weights, message):
    with pytest.raises(ValueError, match=message):
        create_loss(make(), LossConfig(weights=weights))
