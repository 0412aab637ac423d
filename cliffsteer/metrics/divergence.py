"""Divergence: whether predicted vector fields keep a constraint that the truth keeps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.metrics.pairs import check_lead_times, check_seen, field_pairs, ratio


class Divergence(Metric):
    """Divergence of vector fields relative to their gradient, of predictions and truth, for every lead time.

        divergence = √(E⟨(Σ_i ∂_i v_i)²⟩ / E⟨Σ_ij (∂_i v_j)²⟩)

    with ⟨·⟩ the mean over cells and E that over all frames of the stream: 0 for a field without sources, about 1/√n for
    noise. A field of the last grade but one is a vector in disguise, its dual, and counts where it is no vector itself:
    the magnetic field in space; the electromagnetic field on R^{1,2}, of which it is ∇∧F = 0, without charges in it.

    Derivatives are exact for the waves of the grid along periodic axes, and central differences along others, where
    the outermost cells are left out. A solver that keeps a divergence of its own discretisation at zero shows a small
    number here: compare with the truth's.

    Args:
        spec: the fields.
        grid: their grid; axes that are not periodic need three cells.
        lead_times: number of frames in a prediction.

    Attributes:
        measured: the fields that have a divergence; may be empty.

    Raises:
        ValueError: no lead times.
    """

    full_state_update = False

    def __init__(self, spec: FieldSpec, grid: Grid, lead_times: int = 1, **options: Any):
        super().__init__(**options)
        check_lead_times(lead_times)
        self.spec, self.grid, self.lead_times = spec, grid, lead_times
        self.measured = tuple(field for field in spec.dynamic if has_divergence(field, grid))
        for name in ("sources", "gradients"):
            zeros = torch.zeros(2, lead_times, len(self.measured), dtype=torch.float64)
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
        pairs = [pair for field, pair in zip(self.spec.dynamic, pairs, strict=True) if field in self.measured]
        for i, (field, pair) in enumerate(zip(self.measured, pairs, strict=True)):
            for j, values in enumerate(pair):
                vector = values if field.grade == 1 else _dual(values, self.spec.algebra.signature)
                slopes = [_derivative(vector, self.grid, axis) for axis in range(self.grid.dim)]
                source = sum(slope[:, :, axis] for axis, slope in enumerate(slopes))
                self.sources[j, :, i] += source.square().flatten(2).mean(2).sum(0)
                self.gradients[j, :, i] += sum(slope.square().sum(2).flatten(2).mean(2).sum(0) for slope in slopes)
        self.frames += len(truth)

    def compute(self) -> dict[str, Any]:
        """Of fields with a divergence: ``{"model": {"fields": {field: [value per lead time]}}, "truth": the same}``.

        Raises:
            ValueError: nothing was added yet.
        """
        check_seen("Divergence", self.frames)
        values = ratio(self.sources, self.gradients).sqrt()
        return {
            who: {"fields": {field.name: values[j, :, i].tolist() for i, field in enumerate(self.measured)}}
            for j, who in enumerate(("model", "truth"))
        }


def has_divergence(field: Field, grid: Grid) -> bool:
    """Whether a field is a vector field, or its dual is, on a grid that is wide enough for derivatives."""
    wide = all(n > 2 for n, sides in zip(grid.shape, grid.boundary, strict=True) if sides[0] != "periodic")
    return wide and field.grade in (1, grid.dim - 1) and field.grade > 0


def _dual(values: Tensor, signature: tuple[int, ...]) -> Tensor:
    """The vector whose divergence is ∇∧f for a field of grade n − 1, blade on axis 2."""
    # The j-th blade lacks e_{n-j}; e^i ∧ e_{1..î..n} = sign_i (−1)^(i−1) e_{1..n}, i from 1.
    signs = values.new_tensor([sign * (-1) ** i for i, sign in enumerate(signature)])
    return values.flip(2) * signs.view(-1, *[1] * len(signature))


def _derivative(values: Tensor, grid: Grid, axis: int) -> Tensor:
    """∂ along a grid axis, on the cells that have neighbours along every axis with walls."""
    first = values.ndim - grid.dim
    inner = [slice(None)] * first + [
        slice(None) if sides[0] == "periodic" or i == axis else slice(1, -1) for i, sides in enumerate(grid.boundary)
    ]
    values, place, n, h = values[tuple(inner)], first + axis, grid.shape[axis], grid.spacing[axis]
    if grid.boundary[axis][0] != "periodic":
        return (values.narrow(place, 2, n - 2) - values.narrow(place, 0, n - 2)) / (2 * h)
    waves = 2 * math.pi / h * torch.fft.rfftfreq(n, dtype=values.dtype, device=values.device)
    if n % 2 == 0:
        waves[-1] = 0  # the shortest wave has no slope at the cells
    factor = (1j * waves).view(-1, *[1] * (grid.dim - 1 - axis))
    return torch.fft.irfft(factor * torch.fft.rfft(values, dim=place), n, dim=place)
