"""Isotropic spectra: how much of a field lives on which length.

    E(k) Δk = Σ_{|κ| in shell k} |f̂(κ)|²,        Σ_k E(k) Δk = ⟨|f|²⟩

with wave vectors κ in radians per unit of length, shells of the width Δk = 2π/L of the longest side L, and ⟨·⟩ the mean
over cells of |f|² = Σ_A f_A²; the sum rule holds exactly on periodic grids. Shells beyond π over the cell size are
incomplete: only corners of the lattice of wave vectors reach them.

Waves run along the axes of space, those of the sign and unit of the last one; over any other, such as time, the mean is
taken. Along an axis that is not periodic f minus its mean is multiplied by sin²(πx/L) √(8/3), Hann's window with mean
square 1, so that a jump between the walls does not hide the spectrum.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid


def isotropic_spectra(spec: FieldSpec, grid: Grid, frames: Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Spectra of all dynamic fields.

    Args:
        spec: the fields.
        grid: their grid.
        frames: shape (batch, time, blade, *grid).

    Returns:
        Wave numbers k, shape (shell,), in radians per unit of length, from 0; and for each field E(k), shape
        (batch, time, shell), in the square of the field's unit times the unit of length.

    Raises:
        ValueError: frames of another shape.
    """
    spec.check_frames(frames)
    axes = [i for i in range(grid.dim) if _kind(spec, grid, i) == _kind(spec, grid, grid.dim - 1)]
    step = 2 * math.pi / max(grid.extent[i] for i in axes)
    waves = [2 * math.pi * np.fft.fftfreq(grid.shape[i], grid.spacing[i]) for i in axes]
    squared = sum(k**2 for k in np.meshgrid(*waves, indexing="ij", sparse=True))
    shells = np.rint(np.sqrt(squared) / step).astype(int)
    n_shells = int(shells.max()) + 1
    found = {}
    for name, field in spec.unpack(frames.detach().to("cpu", torch.float64)).items():
        spectrum = _powers(field.numpy(), grid, axes)
        summed = [np.bincount(shells.ravel(), power.ravel(), n_shells) for power in spectrum.reshape(-1, shells.size)]
        found[name] = np.stack(summed).reshape(*frames.shape[:2], n_shells) / step
    return step * np.arange(n_shells), found


def _kind(spec: FieldSpec, grid: Grid, axis: int) -> tuple[int, str]:
    return spec.algebra.signature[axis], grid.unit[axis]


def _powers(field: np.ndarray, grid: Grid, axes: list[int]) -> np.ndarray:
    """|f̂|² of (batch, time, component, *grid) summed over components and averaged over other axes than ``axes``."""
    places = tuple(3 + i for i in axes)
    windowed = [i for i in axes if grid.boundary[i][0] != "periodic"]
    mean = field.mean(tuple(3 + i for i in windowed), keepdims=True) if windowed else 0.0
    values = field - mean
    for i in windowed:
        n = grid.shape[i]
        window = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
        values = values * (window / math.sqrt(np.square(window).mean())).reshape(n, *[1] * (grid.dim - 1 - i))
    cells = math.prod(grid.shape[i] for i in axes)
    powers = np.square(np.abs(np.fft.fftn(values, axes=places) / cells))
    if windowed:  # what was taken out is the part without waves along these axes
        kept = np.broadcast_to(mean, field.shape)
        powers = powers + np.square(np.abs(np.fft.fftn(kept, axes=places) / cells))
    others = tuple(3 + i for i in range(grid.dim) if i not in axes)
    return (
        powers.sum(2, keepdims=True)
        .mean(others, keepdims=True)
        .reshape(*field.shape[:2], *[grid.shape[i] for i in axes])
    )
