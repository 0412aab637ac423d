"""ChargeWaves: Fourier coefficients of Gaussian clouds of charge on a periodic grid, and of the fields they make.

    f(x) = Σ_k f_k exp(ik·x),   ρ_k = S_k Σ q exp(−ik·r),   J_k = S_k Σ q v exp(−ik·r),   S_k = exp(−k²σ²/2) / volume

Of f_{−k} = f_k* one is stored, in the layout of ``torch.fft.rfftn``. Nyquist's waves, whose direction of travel a grid
of even sides cannot tell, are left out.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor

from cliffsteer.solvers.charges import Vector


class ChargeWaves:
    """Waves of one grid and one width of the clouds.

    Args:
        cells: number of cells along each axis.
        spacing: their size along each axis.
        width: standard deviation σ of the clouds.
        device: of the tensors.

    Attributes:
        k: wave vectors, shape (axis, *k).
        squared: k².
        form: S_k, zero for Nyquist's waves.
    """

    def __init__(self, cells: tuple[int, ...], spacing: tuple[float, ...], width: float, device: torch.device | str):
        self.cells = cells
        self._axes = tuple(range(-len(cells), 0))
        numbers = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device) for n in cells]
        numbers[-1] = numbers[-1][: cells[-1] // 2 + 1].abs()
        extent = [n * h for n, h in zip(cells, spacing, strict=True)]
        self._waves = [2 * math.pi / length * m for m, length in zip(numbers, extent, strict=True)]
        self._centre = [h / 2 for h in spacing]
        self.k = torch.stack(torch.meshgrid(*self._waves, indexing="ij"))
        self.squared = self.k.square().sum(0)
        self.form = torch.exp(-self.squared * width**2 / 2) / math.prod(extent)
        for axis, n in enumerate(cells):
            if n % 2 == 0:
                self.form.narrow(axis, n // 2, 1).zero_()
        self._inverse_square = torch.where(self.squared > 0, 1 / self.squared.clamp(min=1e-300), 0.0)
        self._ik = 1j * self.k

    def phases(self, position: Vector) -> list[Tensor]:
        """exp(−ik·r) of charges, a factor for each axis, of shape (..., charge, wave number).

        Args:
            position: components of r, shape (..., charge), counted from the low edges of the grid.
        """
        return [
            torch.polar(torch.ones_like(angle), angle)
            for angle in (
                (c - x).unsqueeze(-1) * waves for x, waves, c in zip(position, self._waves, self._centre, strict=True)
            )
        ]

    def superpose(self, weights: Tensor, position: Vector) -> Tensor:
        """Σ w exp(−ik·r) over charges, shape (..., row, *k), of weights (..., row, charge)."""
        first, *others = self.phases(position)
        rest = others[0]
        for factor in others[1:]:
            rest = (rest.unsqueeze(-1) * factor.unsqueeze(-2)).flatten(-2)
        left = weights.unsqueeze(-1) * first.unsqueeze(-3)  # (..., row, charge, k1)
        return (left.mT @ rest.unsqueeze(-3)).unflatten(-1, self.k.shape[2:])

    def transverse(self, vector: Tensor) -> Tensor:
        """The part of vectors (..., axis, *k) perpendicular to k; all of them at k = 0."""
        axis = -1 - len(self.cells)
        along = (self.k * vector).sum(axis, keepdim=True) * self._inverse_square
        return vector - self.k * along

    def gradient(self, scalar: Tensor) -> Tensor:
        """∇f, ik f of coefficients (..., *k), shape (..., axis, *k)."""
        return self._ik * scalar.unsqueeze(-1 - len(self.cells))

    def potential(self, density: Tensor) -> Tensor:
        """φ = ρ / k², of ∇²φ = −ρ; without mean."""
        return density * self._inverse_square

    def curl(self, vector: Tensor) -> Tensor:
        """B_ij = ∂_i A_j − ∂_j A_i for i < j of vectors (..., axis, *k), shape (..., pair, *k)."""
        a = vector.unbind(-1 - len(self.cells))
        pairs = itertools.combinations(range(len(a)), 2)
        return torch.stack([self._ik[i] * a[j] - self._ik[j] * a[i] for i, j in pairs], -1 - len(self.cells))

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Values at the cell centres, (..., *x), of coefficients (..., *k)."""
        if not coefficients.numel():  # the transform refuses to do nothing
            return coefficients.real.new_zeros(*coefficients.shape[: -len(self.cells)], *self.cells)
        return torch.fft.irfftn(coefficients, s=self.cells, dim=self._axes, norm="forward")


@lru_cache(maxsize=4)
def charge_waves(cells: tuple[int, ...], spacing: tuple[float, ...], width: float, device: str) -> ChargeWaves:
    """The waves of a grid, made once."""
    return ChargeWaves(cells, spacing, width, device)
