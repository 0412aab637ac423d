"""SpectralGrid: Fourier coefficients of fields on a periodic grid, only those that products can be formed of exactly.

    f(x) = Σ_k c_k exp(i k·x),   kᵢ = 2π mᵢ / Lᵢ,   |mᵢ| <= (nᵢ − 1) / 3

Of a product of two such fields sampled on the grid, the coefficients kept are exact: what the other coefficients of the
product alias to is cut away (the 2/3 rule). The Nyquist wave is never kept. Fields are real, so of c_k and
c_{−k} = c_k* one is stored: along the last axis mᵢ >= 0. Positions are counted from the first cell centre.

Source: Orszag, "On the elimination of aliasing in finite-difference schemes by filtering high-wavenumber components"
(1971).
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor

from cliffsteer.grid import Grid


class SpectralGrid:
    """Transforms and vector calculus on the kept coefficients of a periodic grid.

    Coefficients have trailing axes ``shape``; vectors have their components on the axis before them.

    Args:
        grid: the cell-centred grid.

    Attributes:
        grid: the same.
        highest: largest wave number kept along each axis, in waves per side.
        shape: of the coefficients.

    Raises:
        ValueError: a side that is not periodic, or an axis of fewer than 4 cells, which keeps no wave.
    """

    def __init__(self, grid: Grid):
        if not grid.is_periodic:
            raise ValueError(f"`grid` has boundary {grid.boundary}: Fourier series need periodic sides.")
        if min(grid.shape) < 4:
            raise ValueError(f"`grid` has shape {grid.shape}: at least 4 cells along each axis are needed for a wave.")
        self.grid = grid
        self.highest = tuple((n - 1) // 3 for n in grid.shape)
        self.shape = (*(2 * m + 1 for m in self.highest[:-1]), self.highest[-1] + 1)
        self._axes = tuple(range(-grid.dim, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients (..., *shape) of samples (..., *grid); c_0 is the mean."""
        out = x.new_zeros(*x.shape[: -self.grid.dim], *self.shape, dtype=torch.complex128)
        if not out.numel():  # an empty batch, which not every FFT takes
            return out
        c = torch.fft.rfftn(x, dim=self._axes, norm="forward")
        for kept, whole in self._blocks():
            out[(..., *kept)] = c[(..., *whole)]
        return out

    def inverse(self, c: Tensor) -> Tensor:
        """Samples (..., *grid) of coefficients (..., *shape)."""
        n = self.grid.shape
        if not c.numel():
            return c.real.new_zeros(*c.shape[: -self.grid.dim], *n)
        full = c.new_zeros(*c.shape[: -self.grid.dim], *n[:-1], n[-1] // 2 + 1)
        for kept, whole in self._blocks():
            full[(..., *whole)] = c[(..., *kept)]
        return torch.fft.irfftn(full, s=n, dim=self._axes, norm="forward")

    def vectors(self, device: torch.device | str = "cpu") -> Tensor:
        """Wave vectors k, shape (dim, *shape), float64, in radians per unit of length."""
        return _wave_vectors(self.highest, self.grid.extent, str(device))

    def squares(self, device: torch.device | str = "cpu") -> Tensor:
        """k², shape ``shape``."""
        return self.vectors(device).square().sum(0)

    def derivatives(self, device: torch.device | str = "cpu") -> Tensor:
        """ik, complex: what ∂ᵢ multiplies coefficients by; shape (dim, *shape)."""
        return _derivatives(self.highest, self.grid.extent, str(device))

    def divergence(self, c: Tensor) -> Tensor:
        """∇·u of vectors (..., dim, *shape)."""
        return (self.derivatives(c.device) * c).sum(-1 - self.grid.dim)

    def project(self, c: Tensor) -> Tensor:
        """The divergence-free part u − k (k·u) / k² of vectors (..., dim, *shape) (Leray's projection)."""
        component = -1 - self.grid.dim
        unit = _unit_vectors(self.highest, self.grid.extent, str(c.device))
        return c - unit * (unit * c).sum(component, keepdim=True)

    def mean_product(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean of the product of two fields over the domain (Parseval); shape without the trailing axes."""
        products = a.real * b.real + a.imag * b.imag
        products[..., 1:] *= 2  # waves that stand for their conjugate as well
        return products.sum(self._axes)

    def _blocks(self) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Where each block of coefficients lies among the kept ones and among all."""
        per_axis = [
            [(slice(0, m + 1), slice(0, m + 1)), (slice(m + 1, 2 * m + 1), slice(n - m, n))]
            for m, n in zip(self.highest[:-1], self.grid.shape[:-1], strict=True)
        ]
        last = slice(0, self.highest[-1] + 1)
        blocks = itertools.product(*per_axis, [(last, last)])
        return [tuple(zip(*block, strict=True)) for block in blocks]


@lru_cache(maxsize=8)
def _wave_vectors(highest: tuple[int, ...], extent: tuple[float, ...], device: str) -> Tensor:
    waves = [torch.cat([torch.arange(m + 1), torch.arange(-m, 0)]) for m in highest[:-1]]
    waves.append(torch.arange(highest[-1] + 1))
    axes = [2 * math.pi / length * m.to(torch.float64) for m, length in zip(waves, extent, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).to(device)


@lru_cache(maxsize=8)
def _derivatives(highest: tuple[int, ...], extent: tuple[float, ...], device: str) -> Tensor:
    return 1j * _wave_vectors(highest, extent, device)


@lru_cache(maxsize=8)
def _unit_vectors(highest: tuple[int, ...], extent: tuple[float, ...], device: str) -> Tensor:
    """Unit vectors k / |k|, zero at k = 0; complex, since products of a complex and a real tensor copy the real one."""
    k = _wave_vectors(highest, extent, device)
    norm = k.norm(dim=0)
    return (k / torch.where(norm > 0, norm, 1.0)).to(torch.complex128)
