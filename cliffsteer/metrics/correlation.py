"""Correlation time: for how long a rollout looks like the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from cliffsteer.fields import FieldSpec
from cliffsteer.metrics.pairs import check_lead_times, check_seen, field_pairs

THRESHOLDS = (0.9, 0.8)
_FLAT = 1e-12
"""Variance over mean square below which a field of float32 numbers has no variations."""


class CorrelationTime(Metric):
    """Pearson correlation of predictions û with frames u, and the time at which it falls below a threshold.

    With ⟨·⟩ the mean over cells, summed over components, and ū the mean of u over cells,

        ρ = ⟨(û − mean û) · (u − ū)⟩ / √(⟨|û − mean û|²⟩ ⟨|u − ū|²⟩),        T = first time with ρ < threshold

    for each rollout and field; between lead times ρ is interpolated linearly, from 1 at time 0. A rollout that stays
    above the threshold to its end counts with the time of its end, and in "lasting", the share of such rollouts: then
    the mean time is a lower bound. ρ is 0 where the prediction is flat or not finite; where the truth is flat, it is 1
    for a prediction that is flat too and 0 for any other.

    Kochkov et al., "Machine learning-accelerated computational fluid dynamics" (PNAS 2021), use the threshold 0.95 on
    vorticity; PDE-Refiner (Lippe et al., NeurIPS 2023) 0.8.

    Args:
        spec: the fields.
        lead_times: number of frames in a prediction.
        dt: time between them.
        thresholds: of the correlation.

    Raises:
        ValueError: no lead times, or a threshold that is not between 0 and 1.
    """

    full_state_update = False

    def __init__(
        self, spec: FieldSpec, lead_times: int, dt: float, thresholds: Sequence[float] = THRESHOLDS, **options: Any
    ):
        super().__init__(**options)
        check_lead_times(lead_times)
        for threshold in thresholds:
            if not 0 < threshold < 1:
                raise ValueError(f"`thresholds` (={tuple(thresholds)}) must lie between 0 and 1.")
        self.spec, self.lead_times, self.dt, self.thresholds = spec, lead_times, dt, tuple(thresholds)
        fields = len(spec.dynamic)
        for name, rows in (("correlation", lead_times), ("times", len(thresholds)), ("lasting", len(thresholds))):
            self.add_state(name, default=torch.zeros(rows, fields, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rollouts", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add a batch of rollouts.

        Args:
            prediction: frames, shape (batch, lead time, blade, *grid), in physical units.
            truth: the same shape.

        Raises:
            ValueError: shapes that differ or do not fit the spec and the number of lead times.
        """
        for i, (predicted, true) in enumerate(field_pairs(self.spec, self.lead_times, prediction, truth)):
            rho = _correlation(predicted.flatten(3), true.flatten(3))
            self.correlation[:, i] += rho.sum(0)
            for j, threshold in enumerate(self.thresholds):
                steps = _falls_below(rho, threshold)
                self.times[j, i] += self.dt * steps.sum()
                self.lasting[j, i] += (rho >= threshold).all(1).sum()
        self.rollouts += len(truth)

    def compute(self) -> dict[str, Any]:
        """``{"fields": {field: {"correlation": [mean per lead time], "time_0.9": mean, "lasting_0.9": share, ...}}}``.

        Raises:
            ValueError: nothing was added yet.
        """
        check_seen("CorrelationTime", self.rollouts)
        fields = {}
        for i, field in enumerate(self.spec.dynamic):
            fields[field.name] = {"correlation": (self.correlation[:, i] / self.rollouts).tolist()}
            for j, threshold in enumerate(self.thresholds):
                fields[field.name][f"time_{threshold:g}"] = float(self.times[j, i] / self.rollouts)
                fields[field.name][f"lasting_{threshold:g}"] = float(self.lasting[j, i] / self.rollouts)
        return {"fields": fields}


def _correlation(predicted: Tensor, true: Tensor) -> Tensor:
    """ρ of (batch, lead time, component, cell), shape (batch, lead time)."""
    a, b = (x - x.mean(-1, keepdim=True) for x in (predicted, true))
    rho = (a * b).sum((2, 3)) / (a.square().sum((2, 3)) * b.square().sum((2, 3))).sqrt()
    flat_a, flat_b = (d.square().sum((2, 3)) <= _FLAT * x.square().sum((2, 3)) for d, x in ((a, predicted), (b, true)))
    rho = torch.where(flat_a | flat_b, (flat_a & flat_b).to(rho), rho)
    return rho.nan_to_num(0.0).clamp(-1, 1)


def _falls_below(rho: Tensor, threshold: float) -> Tensor:
    """Steps until ρ (batch, lead time) is below the threshold, interpolated; the number of steps where it stays."""
    before = torch.cat([torch.ones_like(rho[:, :1]), rho[:, :-1]], 1)
    steps = torch.arange(rho.shape[1], device=rho.device) + (before - threshold) / (before - rho)
    below = rho < threshold
    first = below.int().argmax(1, keepdim=True)
    return torch.where(below.any(1), steps.gather(1, first)[:, 0], float(rho.shape[1]))
