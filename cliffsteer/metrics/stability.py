"""Stable steps: how long a rollout stays better than nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from cliffsteer.fields import FieldSpec
from cliffsteer.metrics.pairs import check_lead_times, check_seen, field_pairs, ratio


class StableSteps(Metric):
    """Steps of each rollout before its error exceeds a limit, or is no number.

    The error of a rollout at lead time k is the mean over fields of √(⟨|û_k − u_k|²⟩ / E_k⟨|u_k|²⟩), with ⟨·⟩ the mean
    over cells and E_k that over the lead times of this rollout, so that a field that is at rest for a moment does not
    end it. 1 is as bad as predicting zero.

    Args:
        spec: the fields.
        lead_times: number of frames in a prediction; no rollout counts for more.
        limit: largest error of a step that counts.

    Raises:
        ValueError: no lead times.
    """

    full_state_update = False

    def __init__(self, spec: FieldSpec, lead_times: int, limit: float = 1.0, **options: Any):
        super().__init__(**options)
        check_lead_times(lead_times)
        self.spec, self.lead_times, self.limit = spec, lead_times, limit
        for name in ("steps", "lasting", "rollouts"):
            self.add_state(name, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("shortest", default=torch.tensor(lead_times), dist_reduce_fx="min")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add a batch of rollouts.

        Args:
            prediction: frames, shape (batch, lead time, blade, *grid), in physical units.
            truth: the same shape.

        Raises:
            ValueError: shapes that differ or do not fit the spec and the number of lead times.
        """
        errors = []
        for predicted, true in field_pairs(self.spec, self.lead_times, prediction, truth):
            inner = tuple(range(2, true.ndim))
            size = true.square().mean(inner).mean(1, keepdim=True)
            errors.append(ratio((predicted - true).square().mean(inner), size).sqrt())
        good = torch.stack(errors).mean(0) <= self.limit  # False for what is no number
        steps = good.long().cumprod(1).sum(1)
        self.steps += steps.sum()
        self.lasting += (steps == self.lead_times).sum()
        self.rollouts += len(steps)
        self.shortest = torch.minimum(self.shortest, steps.min())

    def compute(self) -> dict[str, Any]:
        """``{"steps": mean, "shortest": of a rollout, "lasting": share that is stable to its end, "limit": limit}``.

        Raises:
            ValueError: nothing was added yet.
        """
        check_seen("StableSteps", self.rollouts)
        mean, lasting = float(self.steps / self.rollouts), float(self.lasting / self.rollouts)
        return {"steps": mean, "shortest": int(self.shortest), "lasting": lasting, "limit": self.limit}
