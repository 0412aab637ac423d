"""Rollouts that end at a known step."""

import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.metrics import StableSteps

SPEC = FieldSpec((1, 1), [Field("phi", 0), Field("v", 1)])


def measured(prediction, truth, limit=1.0):
    metric = StableSteps(SPEC, truth.shape[1], limit)
    metric.update(prediction, truth)
    return metric.compute()


def growing(errors, batch=1):
    """Frames of size 1, and predictions with these errors relative to them."""
    truth = torch.ones(batch, len(errors), 4, 6, 6)
    return truth * (1 + torch.tensor(errors)).view(1, -1, 1, 1, 1), truth


def test_steps_before_the_limit_count_and_what_comes_back_does_not():
    assert measured(*growing([0.1, 0.9, 1.2, 0.3])) == {"steps": 2.0, "shortest": 2, "lasting": 0.0, "limit": 1.0}
    assert measured(*growing([0.1, 0.9, 1.2, 0.3]), limit=2.0)["lasting"] == 1.0


def test_mean_and_shortest_of_several_rollouts():
    prediction, truth = growing([0.1] * 5, 4)
    prediction[0, 3] = float("nan")
    prediction[1, 1, 1, 2, 2] = float("inf")
    assert measured(prediction, truth) == {"steps": (3 + 1 + 5 + 5) / 4, "shortest": 1, "lasting": 0.5, "limit": 1.0}


def test_a_field_at_rest_for_a_moment_does_not_end_a_rollout_but_a_field_from_nothing_does():
    prediction, truth = growing([0.1] * 4)
    truth[:, 1] = 0
    prediction[:, 1] = 0.05
    assert measured(prediction, truth)["steps"] == 4.0
    truth[:, :, 0] = 0
    assert measured(prediction, truth)["steps"] == 0.0
    prediction[:, :, 0] = 0
    assert measured(prediction, truth)["steps"] == 4.0


def test_the_error_is_the_mean_over_fields():
    prediction, truth = growing([0.0, 0.0])
    prediction[:, 1, 0] = 1 + 1.9
    assert measured(prediction, truth)["steps"] == 2.0
    prediction[:, 1, 0] = 1 + 2.1
    assert measured(prediction, truth)["steps"] == pytest.approx(1.0)
