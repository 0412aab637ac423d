"""Drifts of predictions with a known mean and energy."""

import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.metrics import Drifts

SPEC = FieldSpec((1, 1), [Field("charge", 0), Field("v", 1)])


def measured(prediction, truth, start, quantities=None):
    metric = Drifts(SPEC, truth.shape[1], quantities)
    metric.update(prediction, truth, start)
    return metric.compute()


@pytest.fixture
def start():
    """Two rollouts: mean 1 and deviation 1 of the charge, v of length 2 everywhere."""
    charge = torch.tensor([0.0, 2.0]).repeat(8, 4).expand(2, 1, 8, 8)
    v = torch.tensor([1.2, 1.6]).view(1, 1, 2, 1, 1).expand(2, 1, 2, 8, 8)
    return SPEC.pack({"charge": charge, "v": v})


def test_added_charge_and_gained_energy(start):
    truth = start.expand(-1, 3, -1, -1, -1)
    prediction = truth.clone()
    prediction[:, :, 0] += torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    prediction[:, :, 1:3] *= torch.tensor([1.0, 1.1, 0.5]).view(1, 3, 1, 1, 1)
    result = measured(prediction, truth, start)
    charge, v = result["model"]["fields"]["charge"], result["model"]["fields"]["v"]
    assert charge["mean"] == pytest.approx([d / 2**0.5 for d in (0.1, 0.2, 0.3)], rel=1e-6)  # ⟨u²⟩ = 2
    assert charge["energy"] == pytest.approx([(2 * d + d * d) / 2 for d in (0.1, 0.2, 0.3)], rel=1e-6)
    assert v["mean"] == pytest.approx([0, 0.1, 0.5], abs=1e-6)
    assert v["energy"] == pytest.approx([0, 0.21, 0.75], abs=1e-6)
    assert v["growth"] == pytest.approx([0, 0.21, -0.75], abs=1e-6)
    for values in result["truth"]["fields"].values():
        assert values == {"mean": [0.0] * 3, "energy": [0.0] * 3, "growth": [0.0] * 3}


def test_gains_and_losses_cancel_in_the_growth_only(start):
    prediction = start.clone()
    prediction[0, :, 1:3] *= 1.5**0.5
    prediction[1, :, 1:3] *= 0.5**0.5
    v = measured(prediction, start, start)["model"]["fields"]["v"]
    assert v["energy"] == [pytest.approx(0.5)]
    assert v["growth"] == [pytest.approx(0, abs=1e-6)]


def test_further_quantities(start):
    mass = {"mass": lambda frames: frames[:, :, 0].sum((-1, -2))}
    result = measured(3 * start, start, start, mass)
    assert result["model"]["quantities"] == {"mass": [pytest.approx(2.0)]}
    assert result["truth"]["quantities"] == {"mass": [0.0]}
    assert measured(start, start, start)["model"]["quantities"] == {}
