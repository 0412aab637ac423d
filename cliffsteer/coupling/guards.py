"""Guards: numbers that say how far a proposed step is from what a surrogate did on data like those it was trained on.

A guard gives each sample of a batch a score, higher for worse. A sample trips it when its score is above the threshold
or is no number. `calibration` sets the thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.projection import Projection
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Parameters, Stepper


class Guard(Protocol):
    """One check.

    Attributes:
        name: how events and files call it.
        threshold: the largest score that passes.
        fixed: whether the threshold is a law, which calibration leaves alone.
    """

    name: str
    threshold: float
    fixed: bool

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """How bad the proposed frames are.

        Args:
            before: frames that the surrogate read, oldest first, shape (batch, time, blade, *grid).
            proposed: the frames it predicts, shape (batch, future, blade, *grid).
            parameters: parameter fields by name.

        Returns:
            Shape (batch,).
        """
        ...


class Finite:
    """Share of values that are NaN or infinite; none may be."""

    name, threshold, fixed = "finite", 0.0, True

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """Share of such values."""
        return (~torch.isfinite(proposed)).flatten(1).double().mean(1)


class Courant:
    """Cells that the flow crosses in a step, max Σᵢ |uᵢ| Δt / hᵢ.

    Args:
        spec: the fields.
        grid: their grid.
        dt: time between frames.
        field: a velocity, in units of the grid over those of ``dt``.
    """

    fixed = False

    def __init__(self, spec: FieldSpec, grid: Grid, dt: float, field: str = "velocity"):
        self.name, self.threshold = f"courant:{field}", math.inf
        self.slot, self.dt, self.spacing = spec.slots[field], dt, grid.spacing

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The largest in any cell of any frame."""
        speed = proposed[:, :, self.slot.start : self.slot.stop].abs()
        cells = sum(u * (self.dt / h) for u, h in zip(speed.unbind(2), self.spacing, strict=True))
        return cells.flatten(1).amax(1)


class Violation:
    """How far frames are from admissible, ‖u − Πu‖ / s: divergence, a mean that is not kept, negative values.

    Args:
        projection: Π, onto the admissible frames.
        kind: word for it, which with the field makes the name.
        scale: s, the root mean square of the field in the data, in its unit.
    """

    fixed = False

    def __init__(self, projection: Projection, kind: str, scale: float):
        self.name, self.threshold = f"{kind}:{projection.field}", math.inf
        self.projection, self.scale = projection, scale

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """Root mean square over cells and components, of the worst frame."""
        removed = proposed - self.projection(proposed, before)
        return _rms(removed[:, :, self.projection.slot.start : self.projection.slot.stop]).amax(1) / self.scale


class Energy:
    """Change of the energy of a field over a step, |⟨|u|²⟩ − ⟨|u₀|²⟩| / s².

    Args:
        spec: the fields.
        field: name of the field.
        scale: s, the root mean square of the field in the data, in its unit.
    """

    fixed = False

    def __init__(self, spec: FieldSpec, field: str, scale: float):
        self.name, self.threshold = f"energy:{field}", math.inf
        self.slot, self.scale = spec.slots[field], scale

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The largest change from one frame to the next."""
        frames = torch.cat([before[:, -1:], proposed.to(before.dtype)], 1)[:, :, self.slot.start : self.slot.stop]
        return _rms(frames).square().diff(dim=1).abs().amax(1) / self.scale**2


class Residual:
    """Residual of the equation over a step, by the trapezoidal rule: ‖u₁ − u₀ − Δt (F(u₀) + F(u₁)) / 2‖ / δ.

    F is what the solver does in a short time, (advance − observe) / ε, so that any solver will do; a check costs two of
    its short steps. The rule is exact for changes that are quadratic in time: calibration tells what is normal.

    Args:
        short: the solver with a time step ε that is a small part of ``dt``; integrators of several substeps need one.
        dt: time between frames.
        scales: δ, root mean square change of each dynamic field from frame to frame.
    """

    name, fixed = "residual", False

    def __init__(self, short: Solver, dt: float, scales: Mapping[str, float]):
        self.short, self.dt, self.scales, self.threshold = short, dt, dict(scales), math.inf

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """Root of the mean over fields, of the worst frame; NaN where frames are not finite."""
        frames = torch.cat([before[:, -1:], proposed.to(before.dtype)], 1).double()
        finite = torch.isfinite(frames).flatten(1).all(1)
        safe = torch.where(finite.view(-1, *[1] * (frames.ndim - 1)), frames, 0.0)
        rows = self.short.read_parameters(parameters, len(frames), frames.device)
        rows = {name: value.repeat_interleave(frames.shape[1], 0) for name, value in rows.items()}
        state = self.short.restore(safe.flatten(0, 1)[:, None], rows)
        change = self.short.observe(self.short.advance(state)) - self.short.observe(state)
        rate = change.view_as(frames) / self.short.dt
        rest = safe.diff(dim=1) - self.dt * (rate[:, 1:] + rate[:, :-1]) / 2
        return torch.where(finite, _normalised(self.short.spec, rest, self.scales).amax(1), math.nan)


class Disagreement:
    """Spread of an ensemble that was trained from several seeds, in units of the usual change: ‖std‖ / δ.

    Args:
        members: surrogates beside the one that proposes, on the same fields.
        scales: δ, root mean square change of each dynamic field from frame to frame.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles" (2017).

    Raises:
        ValueError: no members.
    """

    name, fixed = "disagreement", False

    def __init__(self, members: Sequence[Stepper], scales: Mapping[str, float]):
        if not members:
            raise ValueError("`members` is empty: disagreement needs at least one more surrogate.")
        self.members, self.scales, self.threshold = list(members), dict(scales), math.inf

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """Root of the mean over fields, of the worst frame."""
        opinions = [proposed, *(member.step(before, parameters) for member in self.members)]
        count = min(opinion.shape[1] for opinion in opinions)
        spread = torch.stack([opinion[:, :count].to(proposed.dtype) for opinion in opinions]).std(0)
        return _normalised(self.members[0].spec, spread, self.scales).amax(1)


class Novelty:
    """Distance of the input from the training data: Mahalanobis' distance of a few invariant features.

    For each dynamic field u of scale s: log √(⟨|u|²⟩ + (s/100)²), its roughness (the root mean square difference of
    neighbours over that of u) and its peak (max |u| over the root mean square); for each parameter its magnitude. None
    changes when frames are turned or shifted. A feature that is constant in the data, such as a viscosity, may
    vary by a hundredth.

    Args:
        spec: the fields.
        scales: s, root mean square of each dynamic field in the data, in its unit.
        mean: of the features, shape (feature,); `fit` finds it.
        precision: inverse of their covariance, shape (feature, feature).
    """

    name, fixed = "novelty", False

    def __init__(
        self,
        spec: FieldSpec,
        scales: Mapping[str, float],
        mean: Sequence[float] | None = None,
        precision: Sequence[Sequence[float]] | None = None,
    ):
        self.spec, self.scales, self.threshold = spec, dict(scales), math.inf
        self.mean = None if mean is None else torch.tensor(mean, dtype=torch.float64)
        self.precision = None if precision is None else torch.tensor(precision, dtype=torch.float64)

    def features(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """Features of the last frame and the parameters, shape (batch, feature), float64."""
        found = []
        for name, values in self.spec.unpack(frames[:, -1:].double()).items():
            axes = range(3, values.ndim)
            floor = self.scales[name] / 100
            size = (_rms(values).square() + floor**2).sqrt()
            rough = sum(values.diff(dim=axis).square().flatten(1).mean(1, keepdim=True) for axis in axes).sqrt()
            peak = values.square().sum(2).flatten(1).amax(1, keepdim=True).sqrt()
            found += [size.log(), rough / size, peak / size]
        packed = self.spec.pack_parameters(parameters, len(frames), torch.float64, frames.device)
        found += [value.norm(dim=1, keepdim=True) for value in self.spec.unpack_parameters(packed).values()]
        return torch.cat(found, 1)

    def fit(self, features: Tensor) -> None:
        """Take mean and covariance of the training data's features, (sample, feature)."""
        self.mean = features.mean(0)
        spread = features - self.mean
        least = (0.01 * self.mean.abs().clamp_min(1e-6)).square()
        covariance = spread.mT @ spread / len(features) + least.diag()
        self.precision = torch.linalg.inv(covariance)

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The distance, √((x − m)ᵀ C⁻¹ (x − m)).

        Raises:
            ValueError: not fitted yet.
        """
        if self.mean is None or self.precision is None:
            raise ValueError("`Novelty` knows no data yet: call `fit` with the features of the training data.")
        spread = self.features(before, parameters) - self.mean.to(before.device)
        return torch.einsum("bi,ij,bj->b", spread, self.precision.to(before.device), spread).clamp_min(0).sqrt()

    def state(self) -> dict[str, Any]:
        """JSON-ready: mean and precision."""
        return {"mean": self.mean.tolist(), "precision": self.precision.tolist()}


def tripped(guard: Guard, score: Tensor) -> Tensor:
    """Which samples trip a guard, bool, (batch,); what is no number does."""
    return ~(score <= guard.threshold)


def _rms(values: Tensor) -> Tensor:
    """Root mean square over cells of the norm of (batch, time, component, *grid), shape (batch, time)."""
    return values.double().square().sum(2).flatten(2).mean(2).sqrt()


def _normalised(spec: FieldSpec, frames: Tensor, scales: Mapping[str, float]) -> Tensor:
    """Root of the mean over fields of their mean squares over those of their scales, shape (batch, time)."""
    parts = [_rms(values).square() / scales[name] ** 2 for name, values in spec.unpack(frames).items()]
    return (sum(parts) / len(parts)).sqrt()
