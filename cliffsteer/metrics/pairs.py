"""What all metrics of predicted frames share: a check of shapes, pairs of fields, and ratios of sums."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cliffsteer.fields import FieldSpec


def check_pair(spec: FieldSpec, lead_times: int, prediction: Tensor, truth: Tensor) -> None:
    """Raise a ValueError unless both are frames of the spec, of one shape, with ``lead_times`` frames."""
    spec.check_frames(truth)
    if prediction.shape != truth.shape or truth.shape[1] != lead_times:
        raise ValueError(
            f"`prediction` has shape {tuple(prediction.shape)} and `truth` {tuple(truth.shape)}: they must agree"
            f" and hold {lead_times} lead time(s) on axis 1."
        )


def field_pairs(spec: FieldSpec, lead_times: int, prediction: Tensor, truth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Prediction and truth of each dynamic field, float64, (batch, lead time, component, *grid).

    Raises:
        ValueError: as `check_pair`.
    """
    check_pair(spec, lead_times, prediction, truth)
    predicted, true = spec.unpack(prediction), spec.unpack(truth)
    for name in true:
        yield predicted[name].double(), true[name].double()


def check_lead_times(lead_times: int) -> None:
    """Raise a ValueError unless there is at least one."""
    if lead_times < 1:
        raise ValueError(f"`lead_times` (={lead_times}) must be at least 1.")


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio numerator / denominator, where nothing over nothing is 0."""
    return numerator.where(numerator == 0, numerator / denominator)


def check_seen(name: str, count: Tensor) -> None:
    """Raise a ValueError when a metric has seen no frames."""
    if not count:
        raise ValueError(f"`{name}` has seen no frames: call `update` before `compute`.")
