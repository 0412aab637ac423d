"""Balanced modes and inertia-gravity waves: the linear shallow-water equations, diagonal.

    ∂ₜu = −f ẑ×u − g∇η,   ∂ₜη = −H∇·u

For each wave vector k = |k| k̂ let δ = ik̂·u, ζ = ik̂×u and s = √(g/H) η, and c = √(gH). Then

    δ' = f ζ + c|k| s,   ζ' = −f δ,   s' = −c|k| δ,                ω² = f² + c²k²
    w₀ = (c|k| ζ − f s)/ω   stands,   w± = (δ ± i (f ζ + c|k| s)/ω)/√2   turn as exp(∓iωt)

and the transform is unitary, |w|² = |u|² + gη²/H. The mean flow, k = 0, counts as k̂ = e₁, k = 0.

Source: Vallis, "Atmospheric and oceanic fluid dynamics" (2017), section 3.8, for the waves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliffsteer.solvers.spectral_grid import SpectralGrid


class WaveModes:
    """The modes of the linear part: balanced flow and two inertia-gravity waves for each wave vector.

    Args:
        spectral: the grid's coefficients.
        coriolis, gravity, depth: f in 1/s, g in m/s², H in m, shape (batch,).

    Attributes:
        rates: w' = rates · w for w₀, w₊ and w₋: 0, −iω and iω; shape (batch, 3, *mode), complex.
    """

    def __init__(self, spectral: SpectralGrid, coriolis: Tensor, gravity: Tensor, depth: Tensor):
        k = spectral.vectors(coriolis.device)
        norm = k.norm(dim=0)
        self._direction = 1j * torch.where(
            norm > 0, k / torch.where(norm > 0, norm, 1.0), torch.eye(2, 1)[..., None].to(k)
        )
        coriolis, speed = coriolis[:, None, None], (gravity * depth).sqrt()[:, None, None]
        omega = torch.hypot(coriolis, speed * norm)
        still = omega == 0  # the mean flow without rotation
        divisor = torch.where(still, 1.0, omega)
        self._cos = torch.where(still, 1.0, speed * norm / divisor).to(torch.complex128)
        self._sin = (coriolis / divisor).to(torch.complex128)
        self._scale = (gravity / depth).sqrt()[:, None, None].to(torch.complex128)
        self.rates = 1j * torch.stack([torch.zeros_like(omega), -omega, omega], 1)

    def analyse(self, c: Tensor) -> Tensor:
        """Modes (batch, 3, *mode) of coefficients of η and velocity, of that shape."""
        direction = self._direction
        s = self._scale * c[:, 0]
        delta = direction[0] * c[:, 1] + direction[1] * c[:, 2]
        zeta = direction[0] * c[:, 2] - direction[1] * c[:, 1]
        turning = 1j * (self._sin * zeta + self._cos * s)
        balanced = self._cos * zeta - self._sin * s
        return torch.stack([balanced, (delta + turning) / math.sqrt(2), (delta - turning) / math.sqrt(2)], 1)

    def synthesise(self, w: Tensor) -> Tensor:
        """Coefficients of η and velocity of modes: the inverse of ``analyse``."""
        direction = self._direction
        balanced, first, second = w.unbind(1)
        delta, turning = (first + second) / math.sqrt(2), -1j / math.sqrt(2) * (first - second)
        zeta = self._cos * balanced + self._sin * turning
        s = self._cos * turning - self._sin * balanced
        u = -(direction[0] * delta - direction[1] * zeta)
        v = -(direction[1] * delta + direction[0] * zeta)
        return torch.stack([s / self._scale, u, v], 1)
