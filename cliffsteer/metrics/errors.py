"""Errors of predicted frames, per field and per lead time, summed over a stream of batches in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from cliffsteer.fields import FieldSpec
from cliffsteer.metrics.pairs import check_lead_times, check_seen, field_pairs, ratio

EPSILON = 1e-7
"""Added to the variance in VRMSE, as in The Well."""


class FieldErrors(Metric):
    """Errors of predictions û of frames u, for every dynamic field and lead time.

    With ⟨·⟩ the mean over cells and components, ū the mean of u over cells, s the field's scale, and the outer mean E
    over all frames of the stream:

        mse = E⟨|û − u|²⟩,   nrmse = √(mse / E⟨|u|²⟩),   vrmse = E √(⟨|û − u|²⟩ / (⟨|u − ū|²⟩ + 1e-7)),
        normalized_mse = mse / s²

    nrmse pools numerator and denominator, so that frames at rest do not dominate; where a field is zero in every frame
    of the stream it is 0 for a prediction that is zero too and infinite for any other (how far off, says mse). vrmse, a
    mean over frames, is that of The Well (Ohana et al., NeurIPS 2024). A vector field counts as one field with one ū
    per component, so that all four are invariant under rotations. Each "overall" value is the mean over fields, except
    for component_mse, the mean of the normalised squared error over all components alike: the loss of Zhdanov et al.
    (ICML 2024).

    Args:
        spec: the fields.
        lead_times: number of frames in a prediction.
        scales: scale of each dynamic field in its unit; without it normalized_mse and component_mse are left out.

    Example:
        >>> from cliffsteer import Field
        >>> errors = FieldErrors(FieldSpec((1, 1), [Field("density", 0)]))
        >>> truth = torch.zeros(1, 1, 4, 8, 8)
        >>> truth[:, :, 0] = 2.0
        >>> errors.update(0.5 * truth, truth)
        >>> errors.compute()["fields"]["density"]["nrmse"]
        [0.5]
    """

    full_state_update = False

    def __init__(self, spec: FieldSpec, lead_times: int = 1, scales: Mapping[str, float] | None = None, **options: Any):
        super().__init__(**options)
        check_lead_times(lead_times)
        names = [field.name for field in spec.dynamic]
        if scales is not None and sorted(scales) != sorted(names):
            raise ValueError(f"`scales` is given for {', '.join(scales)}; it must hold {', '.join(names)}.")
        self.spec, self.lead_times = spec, lead_times
        self.scales = None if scales is None else {name: float(scales[name]) for name in names}
        for name in ("squared_error", "squared_truth", "scaled_error"):
            zeros = torch.zeros(lead_times, len(names), dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")
        self.add_state("frames", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: frames, shape (batch, lead time, blade, *grid), in physical units.
            truth: the same shape.

        Raises:
            ValueError: shapes that differ or do not fit the spec and the number of lead times.
        """
        pairs = field_pairs(self.spec, self.lead_times, prediction, truth)
        cells = tuple(range(3, truth.ndim))
        for i, (predicted, u) in enumerate(pairs):
            error = (predicted - u).square().mean((2, *cells))
            variance = (u - u.mean(cells, keepdim=True)).square().mean((2, *cells))
            self.squared_error[:, i] += error.sum(0)
            self.squared_truth[:, i] += u.square().mean((2, *cells)).sum(0)
            self.scaled_error[:, i] += (error / (variance + EPSILON)).sqrt().sum(0)
        self.frames += len(truth)

    def compute(self) -> dict[str, Any]:
        """The errors: ``{"fields": {field: {metric: [value per lead time]}}, "overall": {metric: [...]}}``, floats.

        Raises:
            ValueError: nothing was added yet.
        """
        check_seen("FieldErrors", self.frames)
        values = {
            "mse": self.squared_error / self.frames,
            "nrmse": ratio(self.squared_error, self.squared_truth).sqrt(),
            "vrmse": self.scaled_error / self.frames,
        }
        if self.scales is not None:
            scales = torch.tensor(list(self.scales.values()), dtype=torch.float64, device=self.frames.device)
            values["normalized_mse"] = values["mse"] / scales.square()
        overall = {metric: value.mean(1).tolist() for metric, value in values.items() if metric != "mse"}
        if self.scales is not None:
            sizes = [self.spec.slots[field.name].size for field in self.spec.dynamic]
            weights = torch.tensor(sizes, dtype=torch.float64, device=self.frames.device) / sum(sizes)
            overall["component_mse"] = (values["normalized_mse"] @ weights).tolist()
        fields = {
            field.name: {metric: value[:, i].tolist() for metric, value in values.items()}
            for i, field in enumerate(self.spec.dynamic)
        }
        return {"fields": fields, "overall": overall}
