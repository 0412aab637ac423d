"""Padding of multivector fields, per axis and side, as the boundary asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import pad_axis, reflection_signs
from cliffsteer.grid import Grid
from cliffsteer.nn.checks import whole

MODES = ("zeros", "periodic", "mirror", "conductor", "symmetric")
_OF_BOUNDARY = {"periodic": "periodic", "slip": "mirror", "no_slip": "zeros", "conductor": "conductor", "open": "zeros"}


class Padding(nn.Module):
    """Extend (batch, channel, blade, *grid) by ghost cells on every grid axis.

    Modes: "zeros"; "periodic"; "mirror": ghost cells hold the multivectors behind the wall, reflected in it by the
    versor of its normal, as at a free-slip wall; "conductor": minus that, as the electromagnetic field E + B behind a
    perfect conductor (tangential E and normal B vanish on the wall); "symmetric": the same without turning the blades,
    as other libraries pad (vectors then point the wrong way behind the wall). All commute with the lattice's
    symmetries.

    Args:
        algebra: the algebra.
        width: ghost cells on each side, one number or a pair (low, high) for all axes.
        mode: one mode, or one per axis, or a pair (low, high) per axis, or a Grid, whose boundary then decides.

    Raises:
        ValueError: an unknown mode, a number of modes that does not fit the algebra, or an axis that is periodic on one
            side only.
    """

    def __init__(self, algebra: CliffordAlgebra, width: int | tuple[int, int], mode: Any = "zeros"):
        super().__init__()
        low, high = width if isinstance(width, tuple) else (width, width)
        self.width = whole("width", low, 0), whole("width", high, 0)
        self.modes = padding_modes(mode, algebra.dim)
        signs = torch.tensor([reflection_signs(algebra.blades, axis) for axis in range(algebra.dim)])
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pad a field of multivectors."""
        for axis, modes in enumerate(self.modes):
            signs = self.signs[axis].to(x.dtype).view(-1, *[1] * (x.ndim - 3))
            x = pad_axis(x, x.ndim - len(self.modes) + axis, *self.width, modes, signs)
        return x

    def extra_repr(self) -> str:
        """Width and modes."""
        return f"{self.width}, {self.modes}"


def padding_modes(mode: Any, dim: int) -> tuple[tuple[str, str], ...]:
    """The pair (low, high) of modes of each axis, from one mode, one per axis, pairs, or a Grid.

    Raises:
        ValueError: an unknown mode, a wrong number of them, or an axis that is periodic on one side only.
    """
    if isinstance(mode, Grid):
        mode = tuple(tuple(_OF_BOUNDARY[side] for side in sides) for sides in mode.boundary)
    per_axis = (mode,) * dim if isinstance(mode, str) else tuple(mode) if isinstance(mode, Sequence) else ()
    pairs = tuple((m, m) if isinstance(m, str) else tuple(m) if isinstance(m, Sequence) else () for m in per_axis)
    if len(pairs) != dim or any(len(pair) != 2 or any(m not in MODES for m in pair) for pair in pairs):
        raise ValueError(
            f"`padding` (={mode!r}) must be one of {', '.join(map(repr, MODES))}, or one of them or a (low, high) pair"
            f" for each of the {dim} axes."
        )
    if any(pair.count("periodic") == 1 for pair in pairs):
        raise ValueError(
            f"`padding` (={mode!r}) must be 'periodic' on both sides of an axis or on none: it is a circle."
        )
    return pairs
