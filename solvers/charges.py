"""Charges that oscillate, orbit and drift on prescribed worldlines; units with c = 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Vector = tuple[Tensor, ...]
"""Components, one tensor for each axis: sums over two or three of them are several times faster than along an axis."""


class Motion(Protocol):
    """Worldlines of charges slower than light."""

    def __call__(self, time: Tensor) -> tuple[Vector, Vector, Vector]:
        """Position, velocity and acceleration at times (..., charge, point)."""
        ...


@dataclass(frozen=True)
class HarmonicMotion:
    """Oscillations, orbits and straight lines, r(t) = o + v t + a cos ωt + b sin ωt.

    Args:
        origin, drift, cosine, sine: o, v, a and b, shape (axis, ..., charge).
        omega: ω, shape (..., charge).
    """

    origin: Tensor
    drift: Tensor
    cosine: Tensor
    sine: Tensor
    omega: Tensor

    def __call__(self, time: Tensor) -> tuple[Vector, Vector, Vector]:
        """Position, velocity and acceleration at times (..., charge, point), or of a shape that broadcasts to this."""
        omega = self.omega.unsqueeze(-1)
        phase = omega * time
        cos, sin = phase.cos(), phase.sin()
        position, velocity, acceleration = [], [], []
        columns = (x.unsqueeze(-1) for x in (self.origin, self.drift, self.cosine, self.sine))
        for o, v, a, b in zip(*columns, strict=True):
            swing = (a * cos).addcmul_(b, sin)
            position.append(torch.addcmul(swing, v, time).add_(o))
            velocity.append((omega * b * cos).addcmul_(-omega * a, sin).add_(v))
            acceleration.append(swing.mul_(-omega.square()))
        return tuple(position), tuple(velocity), tuple(acceleration)

    @classmethod
    def of_values(cls, values: Mapping[str, Tensor]) -> HarmonicMotion:
        """The motion kept in a solver's ``State`` by the same names, there with axes (batch, axis, charge) or fewer."""
        named = (values[name].movedim(-2, 0) for name in ("origin", "drift", "cosine", "sine"))
        return cls(*named, values["omega"])
