"""Spectral errors: on which lengths a prediction is wrong, and on which it has too much or too little."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from cliffsteer.datasets.spectra import isotropic_spectra
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.metrics.pairs import check_lead_times, check_pair, check_seen, ratio

BANDS = ("low", "mid", "high")
"""Thirds of the wave numbers up to π over the cell size (the largest cell's); what lies beyond belongs to the last."""


class SpectralErrors(Metric):
    """Errors of predictions û of frames u by band of wave numbers, for every dynamic field and lead time.

    With E_f(k) the isotropic spectrum of a field f (`cliffsteer.datasets.spectra`), and sums over frames and a band,

        error = √(Σ E_{û−u} / Σ E_u),        energy = Σ E_û / Σ E_u

    On a periodic grid the squares of a band's errors, weighted by its share of ⟨|u|²⟩, add up to nrmse². The mean of
    the field, wave number 0, is in the lowest band.

    Args:
        spec: the fields.
        grid: their grid.
        lead_times: number of frames in a prediction.

    Raises:
        ValueError: no lead times.
    """

    full_state_update = False

    def __init__(self, spec: FieldSpec, grid: Grid, lead_times: int = 1, **options: Any):
        super().__init__(**options)
        check_lead_times(lead_times)
        self.spec, self.grid, self.lead_times = spec, grid, lead_times
        signs, units = spec.algebra.signature, grid.unit
        spacing = max(h for h, s, u in zip(grid.spacing, signs, units, strict=True) if (s, u) == (signs[-1], units[-1]))
        self.edges = [i * math.pi / spacing / len(BANDS) for i in range(len(BANDS))]
        for name in ("error", "truth", "predicted"):
            zeros = torch.zeros(lead_times, len(spec.dynamic), len(BANDS), dtype=torch.float64)
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
        check_pair(self.spec, self.lead_times, prediction, truth)
        prediction, truth = prediction.double(), truth.double()
        broken = ~prediction[:, :, self.spec.occupied.to(truth.device)].isfinite().flatten(2).all(2)
        prediction = torch.where(broken.view(*broken.shape, *[1] * (1 + self.grid.dim)), 0.0, prediction)
        sums = [self._bands(frames) for frames in (prediction - truth, truth, prediction)]
        for part in (sums[0], sums[2]):
            part[broken.cpu()] = math.nan
        for state, part in zip((self.error, self.truth, self.predicted), sums, strict=True):
            state += part.sum(0).to(state)
        self.frames += len(truth)

    def compute(self) -> dict[str, Any]:
        """``{"edges": [...], "fields": {field: {"error": {band: [value per lead time]}, "energy": {band: [...]}}}}``.

        The edges are the lower ones of the bands, in radians per unit of length.

        Raises:
            ValueError: nothing was added yet.
        """
        check_seen("SpectralErrors", self.frames)
        values = {"error": ratio(self.error, self.truth).sqrt(), "energy": ratio(self.predicted, self.truth)}
        fields = {
            field.name: {
                name: {band: value[:, i, j].tolist() for j, band in enumerate(BANDS)} for name, value in values.items()
            }
            for i, field in enumerate(self.spec.dynamic)
        }
        return {"edges": self.edges, "fields": fields}

    def _bands(self, frames: Tensor) -> Tensor:
        """Powers of the bands, (batch, lead time, field, band)."""
        numbers, spectra = isotropic_spectra(self.spec, self.grid, frames)
        # a shell on an edge belongs to the band below it, whatever rounding says
        band = np.searchsorted(np.array(self.edges[1:]) * (1 + 1e-9), numbers)
        step = numbers[1] if len(numbers) > 1 else 1.0
        parts = [np.stack([s[..., band == j].sum(-1) for j in range(len(BANDS))], -1) for s in spectra.values()]
        return torch.from_numpy(np.stack(parts, 2) * step)
