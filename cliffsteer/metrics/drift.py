"""Drifts: what a rollout creates or loses of quantities that the system may conserve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from cliffsteer.fields import FieldSpec
from cliffsteer.metrics.pairs import check_lead_times, check_seen, field_pairs, ratio

Quantity = Callable[[Tensor], Tensor]
"""A number for each of the frames (batch, time, blade, *grid), shape (batch, time), such as an energy."""


class Drifts(Metric):
    """Drift of mean and energy from the frame u_0 before the prediction, of predictions and truth, per lead time.

    With ⟨·⟩ the mean over cells and E that over all rollouts of the stream, at lead time k

        mean = √(E|⟨u_k⟩ − ⟨u_0⟩|² / E⟨|u_0|²⟩),        energy = E|⟨|u_k|²⟩ − ⟨|u_0|²⟩| / E⟨|u_0|²⟩

    for each field: the total of a charge or mass density, and the square, the energy of most free fields up to factors.
    "growth" is energy with its sign, E(⟨|u_k|²⟩ − ⟨|u_0|²⟩) / E⟨|u_0|²⟩. Further quantities q have the drift
    E|q_k − q_0| / E|q_0|. The truth's own drifts stand beside: forces and friction are no faults.

    Args:
        spec: the fields.
        lead_times: number of frames in a prediction.
        quantities: further quantities by name.

    Raises:
        ValueError: no lead times.
    """

    full_state_update = False

    def __init__(
        self, spec: FieldSpec, lead_times: int, quantities: Mapping[str, Quantity] | None = None, **options: Any
    ):
        super().__init__(**options)
        check_lead_times(lead_times)
        self.spec, self.lead_times, self.quantities = spec, lead_times, dict(quantities or {})
        for name in ("mean", "energy", "growth"):
            zeros = torch.zeros(2, lead_times, len(spec.dynamic), dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")
        self.add_state("size", default=torch.zeros(len(spec.dynamic), dtype=torch.float64), dist_reduce_fx="sum")
        zeros = torch.zeros(2, lead_times, len(self.quantities), dtype=torch.float64)
        self.add_state("other", default=zeros, dist_reduce_fx="sum")
        self.add_state("others", default=torch.zeros(len(self.quantities), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rollouts", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor, start: Tensor) -> None:
        """Add a batch of rollouts.

        Args:
            prediction: frames, shape (batch, lead time, blade, *grid), in physical units.
            truth: the same shape.
            start: the frame before, (batch, 1, blade, *grid).

        Raises:
            ValueError: shapes that differ or do not fit the spec and the number of lead times.
        """
        before = self.spec.unpack(start)
        for i, pair in enumerate(field_pairs(self.spec, self.lead_times, prediction, truth)):
            u = before[self.spec.dynamic[i].name].double().flatten(3)
            mean, square = u.mean(3), u.square().sum(2).mean(2)
            self.size[i] += square.sum()
            for j, values in enumerate(pair):
                values = values.flatten(3)
                change = values.square().sum(2).mean(2) - square
                self.mean[j, :, i] += (values.mean(3) - mean).square().sum(2).sum(0)
                self.energy[j, :, i] += change.abs().sum(0)
                self.growth[j, :, i] += change.sum(0)
        if self.quantities:
            first = self._others(start)
            self.others += first.abs().sum((0, 1))
            for j, frames in enumerate((prediction, truth)):
                self.other[j] += (self._others(frames) - first).abs().sum(0)
        self.rollouts += len(truth)

    def compute(self) -> dict[str, Any]:
        """What drifted, per lead time.

        Returns:
            ``{"model": {"fields": {field: {"mean": [...], "energy": [...], "growth": [...]}}, "quantities": {name:
            [...]}}, "truth": the same}``.

        Raises:
            ValueError: nothing was added yet.
        """
        check_seen("Drifts", self.rollouts)
        values = {
            "mean": ratio(self.mean, self.size).sqrt(),
            "energy": ratio(self.energy, self.size),
            "growth": ratio(self.growth, self.size),
        }
        other = ratio(self.other, self.others)
        return {
            who: {
                "fields": {
                    field.name: {name: value[j, :, i].tolist() for name, value in values.items()}
                    for i, field in enumerate(self.spec.dynamic)
                },
                "quantities": {name: other[j, :, i].tolist() for i, name in enumerate(self.quantities)},
            }
            for j, who in enumerate(("model", "truth"))
        }

    def _others(self, frames: Tensor) -> Tensor:
        """Values of the further quantities, (batch, time, quantity)."""
        values = [quantity(frames).double().to(self.other.device) for quantity in self.quantities.values()]
        return torch.stack(values, -1)
