"""Every metric streams: its states are sums, so halves merge into the whole, in any order."""

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.metrics import CorrelationTime, Divergence, Drifts, FieldErrors, SpectralErrors, StableSteps

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])
GRID = Grid((8, 6), 0.5)
STEPS = 3
METRICS = {
    "errors": lambda: FieldErrors(SPEC, STEPS, {"density": 1.0, "velocity": 2.0}),
    "correlation": lambda: CorrelationTime(SPEC, STEPS, 0.5),
    "spectrum": lambda: SpectralErrors(SPEC, GRID, STEPS),
    "divergence": lambda: Divergence(SPEC, GRID, STEPS),
    "drift": lambda: Drifts(SPEC, STEPS, {"mass": lambda frames: frames[:, :, 0].sum((-1, -2))}),
    "stable": lambda: StableSteps(SPEC, STEPS),
}


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(6, 1 + STEPS, 4, *GRID.shape, generator=generator)
    noise = torch.randn(6, STEPS, 4, *GRID.shape, generator=generator)
    noise *= torch.linspace(0.1, 2, 6).view(-1, 1, 1, 1, 1)  # some rollouts are good, some are not
    start, future = truth[:, :1], truth[:, 1:]
    return future + noise, future, start


def fed(name, *batches):
    metric = METRICS[name]()
    for prediction, truth, start in batches:
        metric.update(prediction, truth, *([start] if name == "drift" else []))
    return metric


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}.{i}").items()}
    return {path: value}


@pytest.mark.parametrize("name", METRICS)
def test_halves_merge_into_the_whole_and_batches_do_not_matter(name):
    first, second = batch(0), batch(1)
    whole = fed(name, [torch.cat(pair) for pair in zip(first, second, strict=True)])
    halves = [fed(name, first), fed(name, second)]
    halves[1].merge_state(halves[0])
    singles = fed(name, *([part[i, None] for part in half] for half in (second, first) for i in range(6)))
    expected = flat(whole.compute())
    assert len(expected) > 2
    for other in (halves[1], singles):
        assert flat(other.compute()) == pytest.approx(expected, rel=1e-12)
    assert flat(halves[0].compute()) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", METRICS)
def test_what_does_not_fit_is_refused(name):
    prediction, truth, start = batch(0)
    metric, extra = METRICS[name](), [start] if name == "drift" else []
    with pytest.raises(ValueError, match=r"must agree and hold 3 lead time\(s\)"):
        metric.update(prediction[:, :2], truth[:, :2], *extra)
    with pytest.raises(ValueError, match="has seen no frames"):
        metric.compute()


@pytest.mark.parametrize("name", METRICS)
def test_undeclared_blades_and_diverged_rollouts_do_no_harm(name):
    prediction, truth, start = batch(0)
    dirty = prediction.clone()
    dirty[:, :, 3] = float("nan")
    assert flat(fed(name, (dirty, truth, start)).compute()) == flat(fed(name, (prediction, truth, start)).compute())
    prediction[2, 2] = float("inf")
    fed(name, (prediction, truth, start)).compute()  # without a warning of NumPy's
