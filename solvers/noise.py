"""Smooth random fields: sums of few Fourier modes, drawn from one generator, the same on every grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliffsteer.grid import Grid

MODES = 16
"""Highest number of waves per domain length; grids with fewer than 33 cells keep only what they resolve."""
CUTOFF = 0.1
"""Lowest (|k|·scale)², exclusive."""


def smooth_noise(grid: Grid, scale: float, smoothness: float, generator: torch.Generator) -> Tensor:
    """A Gaussian random field with mean 0 and variance 1 over the domain, on an isotropic spectrum.

        f(x) = Re Σ_k c_k exp(2πi k·x),   c_k = g_k |k|^(−2·smoothness),   |k|·scale > √0.1

    with wave vectors k of the periodic domain in waves per metre and complex standard normal g_k: the spectrum of
    PhiFlow's ``Noise(scale, smoothness)``. The coefficients do not depend on the grid, so a seed gives one field at
    every resolution.

    Args:
        grid: where to evaluate it.
        scale: in units of length; waves longer than scale/√0.1 are left out.
        smoothness: how fast short waves die out.
        generator: a CPU generator.

    Returns:
        Shape grid.shape, float64.

    Raises:
        ValueError: no wave is left.
    """
    waves = torch.arange(-MODES, MODES + 1, dtype=torch.float64)
    k = torch.stack(torch.meshgrid(*[waves / length for length in grid.extent], indexing="ij"))
    g = torch.randn(2, *k.shape[1:], dtype=torch.float64, generator=generator)
    squared = k.square().sum(0)
    highest = min(min(MODES, (n - 1) // 2) / length for n, length in zip(grid.shape, grid.extent, strict=True))
    kept = (squared * scale**2 > CUTOFF) & (squared <= highest**2 * (1 + 1e-12))
    if not bool(kept.any()):
        raise ValueError(
            f"`scale` (={scale}) leaves no wave to draw from on a domain of {max(grid.extent)} with {min(grid.shape)}"
            f" cells a side: it must exceed {math.sqrt(CUTOFF) / highest:.3g}."
        )
    relative = torch.where(kept, squared / squared[kept].min(), 1.0)
    c = torch.complex(g[0], g[1]) * relative.pow(-smoothness) * kept
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) * h
        waves_at = torch.exp(2j * math.pi * x[:, None] * waves / grid.extent[axis])
        c = torch.tensordot(waves_at, c, ([1], [axis])).movedim(0, axis)
    field = c.real
    return field / field.square().mean().sqrt()
