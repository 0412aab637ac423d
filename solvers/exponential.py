"""Exponential time differencing: the linear part of u' = L u + N(u) exactly, the rest by a Runge-Kutta method.

    φ₀(z) = e^z,   φ_{j+1}(z) = (φ_j(z) − 1/j!) / z

For a diagonal L, real or complex, of any stiffness.

Sources: Cox and Matthews, "Exponential time differencing for stiff systems" (2002), equations 26-29, the method; Kassam
and Trefethen, "Fourth-order time-stepping for stiff PDEs" (2005), on the cancellation in its coefficients, which the φ
functions avoid here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cliffsteer.solvers.base import UnstableError
from cliffsteer.solvers.spectral_grid import SpectralGrid

COURANT = 2.8
"""Largest stable Σᵢ|uᵢ| k_max Δt: where fourth-order Runge-Kutta methods end on the imaginary axis."""
_TERMS = 20


def phi_functions(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """φ₀, φ₁, φ₂ and φ₃ of each entry, to rounding (relative to the largest values within |z| < 1).

    Within |z| < 1 the Taylor series of φ₃ is summed and the others follow by φ_j = z φ_{j+1} + 1/j!, without
    cancellation; beyond, by the definition.
    """
    small = z.abs() < 1
    near, far = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    series = torch.full_like(near, 1 / math.factorial(_TERMS + 3))
    for j in reversed(range(_TERMS)):
        series = series * near + 1 / math.factorial(j + 3)
    inside, outside = [series], [far.exp()]
    for j in (2, 1, 0):
        inside.insert(0, near * inside[0] + 1 / math.factorial(j))
        outside.append((outside[-1] - 1 / math.factorial(2 - j)) / far)
    return tuple(torch.where(small, a, b) for a, b in zip(inside, outside, strict=True))


class ETDRK4:
    """One step of the fourth-order exponential Runge-Kutta method of Cox and Matthews.

        a = e^{z/2} u + Q N(u),   b = e^{z/2} u + Q N(a),   c = e^{z/2} a + Q (2 N(b) − N(u))
        u' = e^z u + f₁ N(u) + 2 f₂ (N(a) + N(b)) + f₃ N(c),   z = L Δt
        Q = Δt φ₁(z/2) / 2,   f₁ = Δt (φ₁ − 3φ₂ + 4φ₃),   f₂ = Δt (φ₂ − 2φ₃),   f₃ = Δt (4φ₃ − φ₂)

    Args:
        linear: diagonal of L, real or complex, of a shape that broadcasts against the states; in 1/time.
        dt: time step.
    """

    def __init__(self, linear: Tensor, dt: float):
        z = linear * dt
        full, phi1, phi2, phi3 = phi_functions(z)
        half, phi1_half, *_ = phi_functions(z / 2)
        coefficients = (
            full,
            half,
            dt / 2 * phi1_half,
            dt * (phi1 - 3 * phi2 + 4 * phi3),
            2 * dt * (phi2 - 2 * phi3),
            dt * (4 * phi3 - phi2),
        )
        # Complex also where L is real: products of a complex and a real tensor copy the real one each time.
        self._coefficients = tuple(c.to(torch.complex128) for c in coefficients)

    def step(self, u: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
        """The state one ``dt`` later.

        Args:
            u: state, complex.
            nonlinear: N(u), of the state's shape.
        """
        full, half, q, f1, f2, f3 = self._coefficients
        decayed = half * u
        n_u = nonlinear(u)
        a = decayed + q * n_u
        n_a = nonlinear(a)
        n_b = nonlinear(decayed + q * n_a)
        n_c = nonlinear(half * a + q * (2 * n_b - n_u))
        return full * u + f1 * n_u + f2 * (n_a + n_b) + f3 * n_c


def check_courant(velocity: Tensor, spectral: SpectralGrid, dt: float, substeps: int) -> None:
    """Refuse flows that the method, in ``substeps`` steps, would carry further than it is stable.

    Args:
        velocity: (batch, axis, *grid), in m/s.
        spectral: the waves that are kept.
        dt: time of all substeps, in s.
        substeps: their number.

    Raises:
        UnstableError: which trajectories are too fast, or not finite, and the substeps that would do.
    """
    u = velocity.detach()
    highest = [2 * math.pi * m / length for m, length in zip(spectral.highest, spectral.grid.extent, strict=True)]
    rates = sum(u[:, i].abs() * k for i, k in enumerate(highest)).flatten(1).amax(1) * dt
    fits = rates <= COURANT * substeps  # False for NaN
    if not bool(fits.all()):
        rate = float(rates.max())
        raise UnstableError(
            f"`substeps` (={substeps}) is unstable with `dt` (={dt:g} s) and velocities of"
            f" {float(u.norm(dim=1).max()):.3g} m/s: Σ|uᵢ|·k_max·dt/substeps = {rate / substeps:.3g} must not"
            f" exceed {COURANT}" + (f"; take `substeps` >= {math.ceil(rate / COURANT)}." if rate < 1e6 else "."),
            ~fits,
        )
