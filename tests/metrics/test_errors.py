import math

import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.metrics import FieldErrors

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])
SCALES = {"density": 2.0, "velocity": 0.5}


def frames(batch, time, seed=0):
    x = torch.randn(batch, time, 4, 6, 5, generator=torch.Generator().manual_seed(seed))
    return x.masked_fill(~SPEC.occupied.view(-1, 1, 1), 0)


def errors(prediction, truth, parts=1, **options):
    metric = FieldErrors(SPEC, truth.shape[1], SCALES, **options)
    for p, t in zip(prediction.chunk(parts), truth.chunk(parts), strict=True):
        metric.update(p, t)
    return metric.compute()


def test_values_against_a_slow_loop():
    truth, prediction = frames(3, 2), frames(3, 2, seed=1)
    result = errors(prediction, truth)
    for field, part in (("density", slice(0, 1)), ("velocity", slice(1, 3))):
        for time in range(2):
            mse, square, ratio = [], [], []
            for i in range(3):
                u, v = truth[i, time, part].double(), prediction[i, time, part].double()
                mse.append(float((v - u).square().mean()))
                square.append(float(u.square().mean()))
                variance = sum(float((c - c.mean()).square().mean()) for c in u) / len(u)
                ratio.append(math.sqrt(mse[-1] / (variance + 1e-7)))
            got = {name: values[time] for name, values in result["fields"][field].items()}
            assert got["mse"] == pytest.approx(sum(mse) / 3, rel=1e-12)
            assert got["nrmse"] == pytest.approx(math.sqrt(sum(mse) / sum(square)), rel=1e-12)
            assert got["vrmse"] == pytest.approx(sum(ratio) / 3, rel=1e-12)
            assert got["normalized_mse"] == pytest.approx(sum(mse) / 3 / SCALES[field] ** 2, rel=1e-12)


def test_overall_counts_fields_alike_and_component_mse_components_alike():
    result = errors(frames(2, 1, seed=1), frames(2, 1))
    density, velocity = result["fields"]["density"], result["fields"]["velocity"]
    for name in ("nrmse", "vrmse", "normalized_mse"):
        assert result["overall"][name][0] == pytest.approx((density[name][0] + velocity[name][0]) / 2)
    component = (density["normalized_mse"][0] + 2 * velocity["normalized_mse"][0]) / 3
    assert result["overall"]["component_mse"][0] == pytest.approx(component)


def test_zero_prediction_has_nrmse_one_and_truth_zero():
    truth = frames(4, 3)
    assert errors(torch.zeros_like(truth), truth)["fields"]["velocity"]["nrmse"] == pytest.approx([1.0] * 3)
    assert errors(truth, truth)["overall"]["nrmse"] == [0.0] * 3


def test_a_field_that_is_always_zero_has_nrmse_zero_or_infinite_but_never_nan():
    truth = frames(2, 3)
    truth[:, :, 1:3] = 0
    prediction = truth.clone()
    prediction[:, 1, 1] = 0.5  # the second lead time alone is wrong
    result = errors(prediction, truth)
    assert result["fields"]["velocity"]["nrmse"] == [0.0, math.inf, 0.0]
    assert result["fields"]["velocity"]["mse"] == [0.0, 0.125, 0.0]
    assert result["fields"]["density"]["nrmse"] == [0.0] * 3
    assert result["overall"]["nrmse"] == [0.0, math.inf, 0.0]
    prediction[:, 2, 1] = math.nan
    assert math.isnan(errors(prediction, truth)["fields"]["velocity"]["nrmse"][2])


def test_predicting_the_mean_has_vrmse_one():
    truth = frames(4, 1) + 3.0
    mean = truth.mean((-1, -2), keepdim=True).expand_as(truth)
    assert errors(mean, truth)["fields"]["density"]["vrmse"] == pytest.approx([1.0], abs=1e-6)


def test_batching_and_sharding_change_nothing_but_rounding():
    truth, prediction = 1000 + frames(12, 2), 1000 + frames(12, 2, seed=1)
    whole = errors(prediction, truth)
    for parts in (2, 3, 12):
        split = errors(prediction, truth, parts)
        for field in SCALES:
            for name, values in whole["fields"][field].items():
                assert split["fields"][field][name] == pytest.approx(values, rel=1e-13)


def test_float32_frames_far_from_zero_lose_nothing():
    truth = torch.full((1, 1, 4, 6, 5), 4096.0)
    assert errors(truth + 2**-11, truth)["fields"]["density"]["mse"] == [2.0**-22]


def test_undeclared_blades_do_not_count():
    truth, prediction = frames(2, 1), frames(2, 1, seed=1)
    dirty = prediction.clone()
    dirty[:, :, 3] = float("nan")
    assert errors(dirty, truth) == errors(prediction, truth)


def test_rotations_change_nothing():
    from cliffsteer.symmetry import SignedPermutation

    rotation = SignedPermutation((1, 0), (1, -1))
    truth, prediction = frames(2, 1), frames(2, 1, seed=1)
    turned = errors(rotation.act(SPEC.algebra, prediction), rotation.act(SPEC.algebra, truth))
    for field, values in errors(prediction, truth)["fields"].items():
        assert turned["fields"][field] == {name: pytest.approx(value, rel=1e-12) for name, value in values.items()}


def test_without_scales_there_are_no_normalised_errors():
    metric = FieldErrors(SPEC)
    metric.update(frames(1, 1, 1), frames(1, 1))
    result = metric.compute()
    assert set(result["overall"]) == {"nrmse", "vrmse"}
    assert set(result["fields"]["density"]) == {"mse", "nrmse", "vrmse"}


def test_reset_forgets():
    metric = FieldErrors(SPEC)
    metric.update(frames(1, 1, 1), frames(1, 1))
    metric.reset()
    metric.update(frames(1, 1), frames(1, 1))
    assert metric.compute()["overall"]["nrmse"] == [0.0]


def test_refusals():
    with pytest.raises(ValueError, match=r"`lead_times` \(=0\)"):
        FieldErrors(SPEC, 0)
    with pytest.raises(ValueError, match=r"`scales` is given for density; it must hold density, velocity"):
        FieldErrors(SPEC, 1, {"density": 1.0})
    metric = FieldErrors(SPEC, 2)
    with pytest.raises(ValueError, match=r"must agree and hold 2 lead time\(s\)"):
        metric.update(frames(1, 1), frames(1, 1))
    with pytest.raises(ValueError, match="must agree"):
        metric.update(frames(2, 2), frames(1, 2))
    with pytest.raises(ValueError, match="has seen no frames"):
        metric.compute()
