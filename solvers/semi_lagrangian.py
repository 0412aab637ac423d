"""Semi-Lagrangian advection: each sample takes the value that lay where it came from, q(x) ← q(x − Δt u(x)).

One backward Euler step with the velocity at the sample, and linear interpolation: stable for any Δt, first order in
time, and with a numerical diffusion of about h²/(12 Δt) per axis, averaged over where departure points fall in cells.
Nothing is conserved exactly.

Source: Stam, "Stable fluids" (1999), section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def interpolate(values: Tensor, position: Sequence[Tensor]) -> Tensor:
    """Multilinear interpolation, clamped to the outermost samples.

    Args:
        values: samples, shape (batch, *samples), at least two along each axis.
        position: for each axis the coordinate in units of samples, 0 at the first one, each (batch, *place).

    Returns:
        Shape (batch, *place).
    """
    sides = values.shape[1:]
    flat = values.reshape(len(values), -1)
    base, fractions, strides = 0, [], []
    for axis, x in enumerate(position):
        x = x.clamp(0, sides[axis] - 1)
        cell = x.long().clamp_(max=sides[axis] - 2)
        strides.append(sides[axis + 1 :].numel())
        fractions.append(x - cell)
        base = base + cell * strides[-1]
    base = base.flatten(1)
    return _blend(flat, base, strides, fractions, 0)


def _blend(flat: Tensor, base: Tensor, strides: list[int], fractions: list[Tensor], axis: int) -> Tensor:
    """Interpolate along ``axis`` between the results for the later axes."""
    if axis == len(strides):
        return flat.gather(1, base).view_as(fractions[0])
    low = _blend(flat, base, strides, fractions, axis + 1)
    high = _blend(flat, base + strides[axis], strides, fractions, axis + 1)
    return torch.lerp(low, high, fractions[axis])


def departure(shape: Sequence[int], displacement: Sequence[Tensor], first: Sequence[float]) -> list[Tensor]:
    """Coordinates, in samples, of the points from which a regular lattice of points is reached.

    Args:
        shape: number of points along each axis.
        displacement: Δt u / h along each axis, in samples, each (batch, *shape).
        first: coordinate of the first point along each axis.
    """
    positions = []
    for axis, (n, step, start) in enumerate(zip(shape, displacement, first, strict=True)):
        lattice = torch.arange(n, dtype=step.dtype, device=step.device) + start
        positions.append(lattice.view(-1, *[1] * (len(shape) - axis - 1)) - step)
    return positions
