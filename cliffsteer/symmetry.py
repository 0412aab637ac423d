"""The symmetries of a lattice: signed permutations of grid axes, and their action on frames and parameters.

A signed permutation R of the axes is orthogonal for the metric when it permutes only axes of equal sign. It maps the
cell-centred grid onto itself (about its centre) when it permutes only axes of equal length, spacing, unit and boundary.
On a field it moves the values, x -> Rx, and turns the blades by the outermorphism ρ(R), itself a signed permutation, so
the action is exact in any precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.grid import Grid


@dataclass(frozen=True)
class SignedPermutation:
    """The linear map e_i -> signs[i] · e_{axes[i]}.

    Args:
        axes: where each axis goes.
        signs: +1 or -1 for each axis.
    """

    axes: tuple[int, ...]
    signs: tuple[int, ...]

    @property
    def matrix(self) -> Tensor:
        """The orthogonal matrix, float64: column i is the image of e_i."""
        m = torch.zeros(len(self.axes), len(self.axes), dtype=torch.float64)
        for i, (axis, sign) in enumerate(zip(self.axes, self.signs, strict=True)):
            m[axis, i] = sign
        return m

    def move(self, values: Tensor) -> Tensor:
        """Move the values on the trailing grid axes, (Rf)(x) = f(R⁻¹x), about the centre of the grid."""
        first = values.ndim - len(self.axes)
        source = [0] * len(self.axes)
        for i, axis in enumerate(self.axes):
            source[axis] = i
        moved = values.permute(*range(first), *(first + i for i in source))
        flipped = [first + axis for axis, sign in zip(self.axes, self.signs, strict=True) if sign < 0]
        return moved.flip(flipped) if flipped else moved

    def act(self, algebra: CliffordAlgebra, x: Tensor, axis: int = 2) -> Tensor:
        """Act on multivector fields: blades on ``axis`` (one or more multivectors), grid axes trailing.

        Args:
            algebra: the algebra; the map must be orthogonal for its metric.
            x: shape (..., blade, ..., *grid); frames have their blades on axis 2.
            axis: blade axis of ``x``.
        """
        return self.turn(algebra, self.move(x), axis)

    def turn(self, algebra: CliffordAlgebra, x: Tensor, axis: int = -1) -> Tensor:
        """Act on the blades alone, as on parameters (batch, blade)."""
        rho = algebra.outermorphism(self.matrix)
        source, sign = rho.abs().argmax(1), rho.sum(1)
        count, rest = divmod(x.shape[axis], algebra.n_blades)
        if rest:
            raise ValueError(f"`x` has {x.shape[axis]} blades on axis {axis}, not a multiple of {algebra.n_blades}.")
        offsets = torch.arange(count).repeat_interleave(algebra.n_blades) * algebra.n_blades
        index = (source.repeat(count) + offsets).to(x.device)
        trailing = x.ndim - 1 - axis % x.ndim
        return x.index_select(axis, index) * sign.repeat(count).to(x).view(-1, *[1] * trailing)


def lattice_symmetries(algebra: CliffordAlgebra, grid: Grid | None = None) -> Iterator[SignedPermutation]:
    """All signed permutations that keep the metric and, if given, the grid (shape, spacing, unit, boundary).

    Yields the identity first; 8 maps on the Euclidean plane, 48 in space, 16 on R^{1,2}.

    Raises:
        ValueError: the grid has not one axis per basis vector.
    """
    if grid is not None and grid.dim != algebra.dim:
        raise ValueError(
            f"`grid` has {grid.dim} axes, shape {grid.shape}, but {algebra} needs {algebra.dim}, one per basis vector."
        )
    return _elements(algebra, grid)


def _elements(algebra: CliffordAlgebra, grid: Grid | None) -> Iterator[SignedPermutation]:
    kinds = [
        (sign, *((grid.shape[i], grid.spacing[i], grid.unit[i], grid.boundary[i]) if grid else ()))
        for i, sign in enumerate(algebra.signature)
    ]
    for axes in itertools.permutations(range(algebra.dim)):
        if any(kinds[i] != kinds[axis] for i, axis in enumerate(axes)):
            continue
        for signs in itertools.product((1, -1), repeat=algebra.dim):
            element = SignedPermutation(axes, signs)
            if grid is None or all(
                signs[i] > 0 or grid.boundary[axis][0] == grid.boundary[axis][1] for i, axis in enumerate(axes)
            ):
                yield element
