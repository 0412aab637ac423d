"""Fields of moving point charges, from Liénard's and Wiechert's retarded potentials; units with c = 1.

A charge on the worldline r(t) acts at the event (t, x) from its retarded time t − s, where the past light cone of the
event meets the worldline:

    s = |R|,   R = x − r(t − s)

    E = q K [u (1 − β² + R·a) − |R| w a] / w³,   u = R − |R| β,   w = |R| − R·β,   cB = R/|R| ∧ E

with velocity β and acceleration a of the charge at that time, all lengths and times in one unit, and K the field of the
unit charge at rest at distance 1. In a plane that the charges do not leave, the same formulas give the part of the
field of 3+1 dimensions that lies in the plane: the field still falls off as 1/|R|².

Fields are bivectors, components on the blades e1i (time first, then E_i) and eij (then cB_ij = ∂_i A_j − ∂_j A_i):

    F = Σ_i E_i e_1∧e_i + Σ_{i<j} cB_ij e_i∧e_j,        (Ex, Ey, cBz) on (e12, e13, e23) of R^{1,2}

which is −(E + I cB) of spacetime algebra. The sign is free, the signs between the blades are not: with these,
F(x) -> ρ(Λ) F(Λ⁻¹x) under every Lorentz transformation Λ, with ρ the outermorphism.

Sources: Griffiths, "Introduction to Electrodynamics" (4th ed.), equations 10.55 and 10.72 to 10.73; Doran and Lasenby,
"Geometric Algebra for Physicists" (2003), section 7.1, for the bivector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cliffsteer.solvers.charges import HarmonicMotion, Motion, Vector

_FREE_STEPS = 8  # without a bracket; more than three are rarely needed
_MAX_STEPS = 200
_TOLERANCE = 1e-14  # of the delay, relative to the lengths that it is computed from


@dataclass(frozen=True)
class Retarded:
    """Where charges were when they acted on events.

    Args:
        delay: s, shape (charge, point).
        distance: |R|, the same.
        separation, velocity, acceleration: R, β and a, each a tuple of components of that shape.
    """

    delay: Tensor
    distance: Tensor
    separation: Vector
    velocity: Vector
    acceleration: Vector


def retarded(motion: Motion, time: Tensor, position: Tensor, guess: Tensor | None = None) -> Retarded:
    """Solve s = |x − r(t − s)| for each charge and event.

    Each step replaces the worldline by its osculating parabola and intersects it with the light cone, which is a
    quadratic equation: Newton's method of third order, exact for straight worldlines however near they come. Where
    that has not converged after a few steps, it starts again with the tangent in place of the parabola, which always
    meets the light cone, and with a bracket. Below the speed of light there is exactly one solution.

    Args:
        motion: the worldlines.
        time: t of the events, shape (point,).
        position: x of the events, shape (axis, point).
        guess: delays to start from, shape (charge, point).

    Raises:
        ValueError: an event that no delay fits, because a charge is as fast as light or its worldline is not finite.
    """
    if guess is None:
        guess = _norm(_from(motion(time.unsqueeze(0))[0], position))
    delay = guess
    scale = position.abs().sum(0) + time.abs()
    bracket: tuple[Tensor, Tensor] | None = None
    for step in range(_MAX_STEPS):
        place, velocity, acceleration = motion(time - delay)
        separation = _from(place, position)
        squared = _dot(separation, separation)
        distance = squared.sqrt()
        miss = distance - delay
        # far from the origin, in space or time, numbers are rounded by their own size
        beyond = miss.abs().sub_(distance, alpha=_TOLERANCE).sub_(scale, alpha=_TOLERANCE)
        slowness = 1 - _dot(velocity, velocity)
        if bool(beyond.amax() <= 0) and bool(slowness.amin() > 0):
            return Retarded(delay, distance, separation, velocity, acceleration)
        # (R + β δ − a δ²/2)² = (s + δ)² to second order in δ: curvature δ² + 2 slope δ = excess
        excess = squared.addcmul_(delay, delay, value=-1)
        curvature = slowness if bracket else _dot(separation, acceleration).add_(slowness)
        slope = delay - _dot(separation, velocity)
        root = curvature.mul_(excess).addcmul_(slope, slope).clamp_(min=0).sqrt_()
        proposed = excess.div_(slope.add_(root)).add_(delay)
        if step == _FREE_STEPS - 1:
            proposed, bracket = guess, (torch.zeros_like(guess), torch.full_like(guess, torch.inf))
        elif bracket:
            low, high = bracket
            low, high = torch.where(miss > 0, delay, low), torch.where(miss > 0, high, delay)
            bracket = low, high
            middle = torch.where(high.isfinite(), (low + high) / 2, 2 * low + distance)
            proposed = torch.where((proposed > low) & (proposed < high), proposed, middle)
            proposed = torch.where(beyond <= 0, delay, proposed)
        delay = proposed
    raise ValueError(
        "`motion` leaves an event without a retarded time: worldlines must be finite and slower than light."
    )


def straight_delay(motion: HarmonicMotion, time: Tensor, position: Tensor) -> Tensor:
    """The delay from the charges' drifting centres, in closed form: a first guess, shape (charge, point)."""
    drift = tuple(v.unsqueeze(-1) for v in motion.drift)
    centre = tuple(torch.addcmul(o.unsqueeze(-1), v, time) for o, v in zip(motion.origin, drift, strict=True))
    separation = _from(centre, position)
    along = _dot(separation, drift)
    curvature = 1 - _dot(drift, drift)
    root = _dot(separation, separation).mul_(curvature).addcmul_(along, along).sqrt_()
    return root.add_(along).div_(curvature)


def bivector(charge: Tensor, source: Retarded) -> Tensor:
    """The field of all charges together, on the bivector blades; K = 1.

    Args:
        charge: q, shape (charge,).
        source: the charges at their retarded times.

    Returns:
        E_i, then cB_ij for i < j, shape (axis·(axis + 1)/2, point).
    """
    separation, velocity, acceleration = source.separation, source.velocity, source.acceleration
    distance = source.distance
    w = distance - _dot(separation, velocity)
    strength = charge.unsqueeze(-1) / (w * w).mul_(w)
    near = _dot(separation, acceleration).sub_(_dot(velocity, velocity)).add_(1)
    reach = w.mul_(distance)
    electric = [
        torch.addcmul(r, distance, v, value=-1).mul_(near).addcmul_(reach, a, value=-1).mul_(strength)
        for r, v, a in zip(separation, velocity, acceleration, strict=True)
    ]
    direction = [r / distance for r in separation]
    axes = range(len(electric))
    magnetic = [
        (direction[i] * electric[j]).addcmul_(direction[j], electric[i], value=-1) for i in axes for j in axes[i + 1 :]
    ]
    return torch.stack([component.sum(0) for component in electric + magnetic])


def _from(place: Vector, position: Tensor) -> Vector:
    return tuple(x - r for x, r in zip(position, place, strict=True))


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total.addcmul_(x, y)
    return total


def _norm(a: Vector) -> Tensor:
    return _dot(a, a).sqrt_()
