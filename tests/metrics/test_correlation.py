"""A wave that lags behind decorrelates as the cosine of its lag."""

import math

import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.metrics import CorrelationTime

SPEC = FieldSpec((1, 1), [Field("phi", 0), Field("v", 1)])
CELLS = 32


def shifted(lags):
    """sin(x − lag) in φ, and a circularly polarised wave in v, shape (1, lead time, blade, 32, 4)."""
    x = (torch.arange(CELLS) + 0.5) * 2 * math.pi / CELLS
    phase = (x - torch.as_tensor(lags).view(-1, 1)).unsqueeze(-1).expand(-1, -1, 4)
    v = torch.stack([phase.sin(), phase.cos()], 1)
    return SPEC.pack({"phi": 5 + phase.sin()[None], "v": v[None]})


def measured(prediction, truth, dt=0.5, **options):
    metric = CorrelationTime(SPEC, truth.shape[1], dt, **options)
    metric.update(prediction, truth)
    return metric.compute()["fields"]


def test_a_growing_lag_gives_the_cosine_and_the_time_at_which_it_falls_below():
    steps, speed, dt = 40, 0.05, 0.5
    lags = speed * torch.arange(1, steps + 1)
    result = measured(shifted(lags), shifted(torch.zeros(steps)), dt)
    for field in ("phi", "v"):
        assert result[field]["correlation"] == pytest.approx(lags.cos().tolist(), abs=1e-6)
        for threshold in (0.9, 0.8):
            assert result[field][f"time_{threshold}"] == pytest.approx(dt * math.acos(threshold) / speed, rel=2e-3)
            assert result[field][f"lasting_{threshold}"] == 0


def test_a_perfect_rollout_lasts_to_its_end_and_a_late_recovery_does_not_count():
    truth = shifted(torch.zeros(4))
    assert measured(truth, truth)["phi"] == {
        "correlation": pytest.approx([1.0] * 4),
        **{"time_0.9": 2.0, "lasting_0.9": 1.0, "time_0.8": 2.0, "lasting_0.8": 1.0},
    }
    recovered = shifted([0.0, math.pi / 2, 0.0, 0.0])  # ρ is 1, 0, 1, 1
    assert measured(recovered, truth)["v"]["time_0.8"] == pytest.approx(0.5 * (1 + 0.2), rel=1e-6)


def test_flat_and_broken_frames_have_a_correlation_all_the_same():
    truth = shifted(torch.zeros(3))
    prediction = truth.clone()
    prediction[:, 1, 0] = 7.0
    prediction[:, 2, 0, 1, 1] = float("nan")
    assert measured(prediction, truth)["phi"]["correlation"] == pytest.approx([1.0, 0.0, 0.0])
    flat = torch.full_like(truth, 3.3)
    assert measured(2 * flat, flat)["phi"]["correlation"] == [1.0] * 3
    assert measured(truth, flat)["phi"]["correlation"] == [0.0] * 3


def test_rotations_change_nothing():
    from cliffsteer.symmetry import SignedPermutation

    g, truth = SignedPermutation((1, 0), (1, -1)), torch.randn(2, 3, 4, 8, 8)
    prediction = truth + 0.4 * torch.randn(2, 3, 4, 8, 8)
    turned = measured(g.act(SPEC.algebra, prediction), g.act(SPEC.algebra, truth))
    assert turned["v"]["correlation"] == pytest.approx(measured(prediction, truth)["v"]["correlation"])


def test_thresholds_are_checked_and_used():
    with pytest.raises(ValueError, match=r"`thresholds` \(=\(1.5,\)\) must lie between 0 and 1"):
        CorrelationTime(SPEC, 1, 1.0, [1.5])
    truth = shifted(torch.zeros(1))
    assert set(measured(truth, truth, thresholds=[0.5])["phi"]) == {"correlation", "time_0.5", "lasting_0.5"}
