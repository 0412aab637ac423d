"""Projections: what makes frames admissible, as layers (exact, differentiable) and as steps.

A projection maps frames to the closest ones that obey a law, and leaves alone what obeys it already. As a layer it goes
behind a network; ``Projected`` puts it behind every step of a Stepper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.fields import FieldSpec, Slot
from cliffsteer.grid import Grid, check_grid_shape
from cliffsteer.stepper import Parameters, Stepper


class Projection(nn.Module, ABC):
    """Frames to the closest admissible frames; a subclass implements ``project``.

    Args:
        spec: the fields.
        field: the dynamic field that is changed; all others pass.

    Shape:
        (batch, time, blade, *grid) -> the same.

    Raises:
        ValueError: no such field, or a parameter.
    """

    def __init__(self, spec: FieldSpec, field: str):
        super().__init__()
        if spec[field].role != "dynamic":
            raise ValueError(f"`field` (={field!r}) is a parameter: only dynamic fields are projected.")
        self.spec, self.field = spec, field

    @property
    def slot(self) -> Slot:
        """Place of the field among the blades."""
        return self.spec.slots[self.field]

    def forward(self, frames: Tensor, before: Tensor | None = None) -> Tensor:
        """Project every frame.

        Args:
            frames: shape (batch, time, blade, *grid).
            before: the frames that came before, oldest first, for laws that compare with the last of them.
        """
        self.spec.check_frames(frames)
        start, stop = self.slot.start, self.slot.stop
        projected = self.project(frames[:, :, start:stop], None if before is None else before[:, -1:, start:stop])
        return torch.cat([frames[:, :, :start], projected, frames[:, :, stop:]], 2)

    @abstractmethod
    def project(self, values: Tensor, before: Tensor | None) -> Tensor:
        """The same for the field alone, shape (batch, time, component, *grid)."""

    def extra_repr(self) -> str:
        """The field."""
        return self.field


class DivergenceFree(Projection):
    """Leray's projection: the closest field with ∇·u = 0 (of any grade: ∇⌋u = 0).

        û ← û − k∧(k⌋û) / |k|²

    exact on periodic, collocated grids with spectral derivatives, where Nyquist's waves have none. Between walls, and
    with ``staggered``, a velocity is one averaged from the faces of a MAC grid, as `smoke` shows it: then the result is
    the closest average of divergence-free faces (`MacGrid.to_faces`).

    Args:
        spec: the fields.
        grid: their grid.
        field: name of the field.
        staggered: whether the field is averaged from faces; by default where the grid has walls.

    Raises:
        ValueError: walls without faces, faces of a field that is no vector, or an open side.

    Example:
        >>> from cliffsteer import Field
        >>> spec, grid = FieldSpec((1, 1), [Field("velocity", 1, "m/s")]), Grid((16, 16))
        >>> project = DivergenceFree(spec, grid, "velocity")
        >>> project(torch.randn(2, 1, 4, 16, 16)).shape
        torch.Size([2, 1, 4, 16, 16])
    """

    def __init__(self, spec: FieldSpec, grid: Grid, field: str = "velocity", staggered: bool | None = None):
        super().__init__(spec, field)
        self.grid = grid
        self.staggered = not grid.is_periodic if staggered is None else staggered
        if self.staggered:
            from cliffsteer.solvers.mac import MacGrid

            if spec[field].grade != 1:
                raise ValueError(f"`field` (={field!r}) has grade {spec[field].grade}: only vectors live on faces.")
            self.mac = MacGrid(grid)
        else:
            self.waves = _Waves(spec.algebra, grid, spec[field].grade - 1)

    def project(self, values: Tensor, before: Tensor | None) -> Tensor:
        """The divergence-free part of the field."""
        check_grid_shape(values, self.grid)
        if not self.staggered:
            return self.waves(values, lower=True)
        faces = self.mac.to_faces(values.flatten(0, 1).to(torch.float64))
        return self.mac.to_centers(faces).to(values.dtype).unflatten(0, values.shape[:2])


class CurlFree(Projection):
    """The closest field with ∇∧u = 0 on a periodic grid, as a magnetic bivector has none: û ← û − k⌋(k∧û) / |k|².

    Args:
        spec: the fields.
        grid: their grid.
        field: name of the field.

    Raises:
        ValueError: a side that is not periodic.
    """

    def __init__(self, spec: FieldSpec, grid: Grid, field: str):
        super().__init__(spec, field)
        self.grid = grid
        self.waves = _Waves(spec.algebra, grid, spec[field].grade, metric=True)

    def project(self, values: Tensor, before: Tensor | None) -> Tensor:
        """The curl-free part of the field."""
        check_grid_shape(values, self.grid)
        return self.waves(values, lower=False)


class PreserveMean(Projection):
    """The closest field with the mean of the last frame before, of every component: mass, momentum or charge.

    Args:
        spec: the fields.
        field: name of the field.
    """

    def project(self, values: Tensor, before: Tensor | None) -> Tensor:
        """The field, shifted.

        Raises:
            ValueError: no frames before to compare with.
        """
        if before is None:
            raise ValueError(f"`before` is missing: the mean of {self.field!r} is kept from the frames before.")
        axes = tuple(range(3, values.ndim))
        return values + (before.to(values.dtype) - values).mean(axes, keepdim=True)


class Positive(Projection):
    """The closest scalar field that is nowhere negative and has the same mean: u ← max(u − τ, 0), one τ for a frame.

    A frame whose mean is not positive becomes 0. Differentiable wherever no cell is just at τ.

    Args:
        spec: the fields.
        field: name of a scalar field.

    Raises:
        ValueError: a field that is no scalar, which has no sign.

    Source: Held, Wolfe and Crowder, "Validation of subgradient optimization" (1974), for the projection by sorting.
    """

    def __init__(self, spec: FieldSpec, field: str):
        super().__init__(spec, field)
        if spec[field].grade != 0:
            raise ValueError(f"`field` (={field!r}) has grade {spec[field].grade}: only scalars can be positive.")

    def project(self, values: Tensor, before: Tensor | None) -> Tensor:
        """The field, cut off."""
        flat = values.flatten(3)
        total = flat.sum(-1, keepdim=True)
        ordered = flat.sort(-1, descending=True).values
        count = torch.arange(1, flat.shape[-1] + 1, device=flat.device)
        excess = (ordered.cumsum(-1) - total) / count  # τ, if just the first `count` cells stay positive
        kept = (ordered > excess).sum(-1, keepdim=True).clamp_min(1)
        cut = torch.where(total > 0, (flat - excess.gather(-1, kept - 1)).clamp_min(0), torch.zeros_like(flat))
        return torch.where((flat >= 0).all(-1, keepdim=True), flat, cut).view_as(values)


class Projected:
    """A Stepper whose every frame is projected, in the order of the projections.

    Args:
        stepper: any Stepper.
        projections: on its fields.

    Attributes:
        spec, grid, dt, history: those of the stepper.

    Raises:
        ValueError: a projection for other fields or another grid.

    Example:
        >>> from cliffsteer.solvers import create
        >>> solver = create("turbulence", resolution=16, scale=3.0)
        >>> stepper = Projected(solver, [DivergenceFree(solver.spec, solver.grid), PreserveMean(solver.spec, "scalar")])
        >>> stepper.step(solver.observe(solver.initial([0]))).shape
        torch.Size([1, 1, 4, 16, 16])
    """

    def __init__(self, stepper: Stepper, projections: Sequence[Projection]):
        require_suited(projections, stepper.spec, stepper.grid)
        self.stepper, self.projections = stepper, nn.ModuleList(projections)
        self.spec, self.grid, self.dt, self.history = stepper.spec, stepper.grid, stepper.dt, stepper.history

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The stepper's next frames, projected; shapes as for the stepper."""
        new = self.stepper.step(frames, parameters)
        for projection in self.projections:
            new = projection(new, frames)
        return new


def require_suited(projections: Sequence[Projection], spec: FieldSpec, grid: Grid) -> None:
    """Raise a ValueError unless all projections are for these fields and, where they have a grid, for this one."""
    for projection in projections:
        for theirs, ours in ((projection.spec, spec), (getattr(projection, "grid", grid), grid)):
            if theirs != ours:
                raise ValueError(
                    f"`projections` holds one for {theirs}, but the stepper has {ours}: make it for the stepper's"
                    " `spec` and `grid`."
                )


class _Waves(nn.Module):
    """The parts k∧(k⌋u)/|k|² and k⌋(k∧u)/|k|² of periodic fields, taken away.

    Args:
        algebra: the algebra.
        grid: the grid.
        grade: the lower of the two grades between which k leads.
        metric: whether k is the vector of the gradient ∇ = eⁱ∂ᵢ (for wedges), not of the coefficients of ∂ᵢ alone.
    """

    def __init__(self, algebra: CliffordAlgebra, grid: Grid, grade: int, metric: bool = False):
        super().__init__()
        if not grid.is_periodic:
            raise ValueError(f"`grid` has boundary {grid.boundary}: Fourier series need periodic sides.")
        unit = _unit_vectors(grid)
        if metric:
            unit = unit * torch.tensor(algebra.signature, dtype=unit.dtype).view(-1, *[1] * grid.dim)
        self.register_buffer("unit", unit, persistent=False)
        self.lines = _wedges(algebra, grade)
        self.sizes = tuple(algebra.grade_size(k) if 0 <= k <= algebra.dim else 0 for k in (grade, grade + 1))
        self.axes = tuple(range(-grid.dim, 0))

    def forward(self, values: Tensor, lower: bool) -> Tensor:
        """The field without the part that comes from the lower grade, or without that which leads to the higher one."""
        if not self.lines:
            return values
        unit = self.unit.to(device=values.device, dtype=values.dtype)
        spectrum = torch.fft.rfftn(values, dim=self.axes)
        there = self._lead(spectrum, unit, up=not lower)
        part = torch.fft.irfftn(self._lead(there, unit, up=lower), s=values.shape[3:], dim=self.axes)
        return values - part

    def _lead(self, x: Tensor, unit: Tensor, up: bool) -> Tensor:
        """Wedge (up) or contraction (down) with the unit vectors of the waves."""
        size = self.sizes[1] if up else self.sizes[0]
        parts: list[Tensor | None] = [None] * size
        for axis, low, high, sign in self.lines:
            source, target = (low, high) if up else (high, low)
            term = x[:, :, source] * (sign * unit[axis])
            parts[target] = term if parts[target] is None else parts[target] + term
        return torch.stack(parts, 2)


def _wedges(algebra: CliffordAlgebra, grade: int) -> list[tuple[int, int, int, int]]:
    """Entries (axis, blade of the grade, blade of the next, sign) of e_axis ∧ e_A = ± e_B."""
    if not 0 <= grade < algebra.dim:
        return []
    low, high = (algebra.blades[algebra.grade_slice(k)] for k in (grade, grade + 1))
    places = {tuple(blade): place for place, blade in enumerate(high)}
    return [
        (axis, place, places[tuple(sorted((axis, *blade)))], (-1) ** sum(other < axis for other in blade))
        for place, blade in enumerate(low)
        for axis in range(algebra.dim)
        if axis not in blade
    ]


def _unit_vectors(grid: Grid) -> Tensor:
    """Vectors k/|k| of the half spectrum, (dim, *k), float64; no part along an axis of which a wave is Nyquist's."""
    axes = [torch.fft.fftfreq(n, h, dtype=torch.float64) for n, h in zip(grid.shape, grid.spacing, strict=True)]
    axes[-1] = torch.fft.rfftfreq(grid.shape[-1], grid.spacing[-1], dtype=torch.float64)
    k = 2 * math.pi * torch.stack(torch.meshgrid(*axes, indexing="ij"))
    for axis, n in enumerate(grid.shape):
        if n % 2 == 0:
            k[axis].select(axis, n // 2).zero_()
    norm = k.norm(dim=0)
    return k / torch.where(norm > 0, norm, 1.0)
