"""Group convolutions: steerable layers whose hidden features are functions on the lattice's point group.

A G-field f(x, g) has a number for each point and each element g of the point group G (see `lattice_group`): the
regular representation. A symmetry R acts on it by (Rf)(x, g) = f(R⁻¹x, R⁻¹g). Any pointwise nonlinearity commutes with
that, and so does a convolution if K(Rv) = ρ_out(R) K(v) ρ_in(R)⁻¹, which leaves free weights W for one element only:

    multivectors -> G-field     K_gb(v) = (ρ(g) W)_b(g⁻¹v)
    G-field -> G-field          K_gh(v) = W_{g⁻¹h}(g⁻¹v)
    G-field -> multivectors     K_bh(v) = (ρ(h) W)_b(h⁻¹v)

ρ(g) is the outermorphism, a signed permutation, so that (ρ(g)⁻¹)ᵀ = ρ(g). Each is expanded to one real convolution.
Sources: Cohen and Welling, "Group equivariant convolutional networks" (ICML 2016); Weiler and Cesa, "General
E(2)-equivariant steerable CNNs" (NeurIPS 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve, pad_axis
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.kernels.lattice import check_kernel_size
from cliffsteer.nn.lattice_group import LatticeGroup, lattice_group, turned
from cliffsteer.nn.linear import add_scalar_bias
from cliffsteer.nn.padding import Padding

_MIRRORS = ("mirror", "conductor")


class GroupConv(nn.Module):
    """Convolution of G-fields, y_o(x, g) = Σ_i Σ_h Σ_v W_oi(g⁻¹h, g⁻¹v) f_i(x + v, h) + b_o, with free weights W.

    Equivariant under translations and, exactly, under the point group. Behind a wall that mirrors, ghost cells hold
    f(m x, m h), with m the reflection in the wall ("conductor": minus that), which is exact as well; a group without m
    repeats the cells next to the wall, as "symmetric" does. Initialised so that white input of unit variance gives
    output of unit variance.

    Args:
        algebra: the algebra, of any signature; one grid axis per basis vector.
        in_channels: fields in.
        out_channels: fields out.
        kernel_size: points along each axis, odd.
        group: "O", "SO" or "orthochronous", see `lattice_group`.
        padding: a mode of `Padding`, one for all, per axis or side, or a Grid.

    Shape:
        (batch, in_channels · element, *grid) -> (batch, out_channels · element, *grid), elements fastest.

    Raises:
        ValueError: an even kernel size, an unknown group or padding.
        RuntimeError: a grid smaller than the kernel.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        group: str = "O",
        padding: Any = "zeros",
    ):
        super().__init__()
        check_algebra(algebra)
        check_kernel_size(kernel_size, allow_even=False)
        points = lattice_group(algebra, group)
        components, signs = self._components(points, algebra)
        shape = whole("out_channels", out_channels), whole("in_channels", in_channels), components.shape[1]
        self.kernel_size, self.group = kernel_size, group
        self.weight = nn.Parameter(torch.empty(*shape, *[kernel_size] * algebra.dim))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.padding = Padding(algebra, kernel_size // 2, padding)
        for name, table in {
            "components": components,
            "signs": signs,
            "cells": points.cells(kernel_size),
            "mirrors": points.mirrors,
        }.items():
            self.register_buffer(name, table, persistent=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels * self._fan() * kernel_size**algebra.dim))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field."""
        if not torch.compiler.is_compiling():
            check_reach(x.shape[2:], self.kernel_size)
        y = convolve(self._padded(x), self.kernel())
        return self._biased(y.unflatten(1, (len(self.bias), -1))).flatten(1, 2)

    def kernel(self) -> Tensor:
        """The real kernel, (out_channels · component, in_channels · component, *k)."""
        turns = turned(self.weight.flatten(3), self.components, self.cells, self.signs)
        return self._arranged(turns).flatten(2, 3).flatten(0, 1).unflatten(2, self.weight.shape[3:])

    def _components(self, points: LatticeGroup, algebra: CliffordAlgebra) -> tuple[Tensor, Tensor | None]:
        """Where the components of the turned weights come from, and with which sign."""
        return points.quotients, None

    def _fan(self) -> int:
        """Components of an input channel."""
        return len(self.cells)

    def _padded(self, x: Tensor) -> Tensor:
        return pad_regular(x, self.padding.width, self.padding.modes, self.mirrors)

    def _arranged(self, turns: Tensor) -> Tensor:
        """(out, in, g, c, v) -> (out, component, in, component, v)."""
        return turns.permute(0, 2, 1, 3, 4)

    def _biased(self, y: Tensor) -> Tensor:
        return y + self.bias.view(-1, *[1] * (y.ndim - 2))

    def extra_repr(self) -> str:
        """Channels, kernel size and group."""
        out, into = self.weight.shape[:2]
        return f"{into}, {out}, kernel_size={self.kernel_size}, group={self.group!r}, elements={len(self.cells)}"


class LiftingConv(GroupConv):
    """Convolution from multivectors to G-fields, y_o(x, g) = Σ_i Σ_v ⟨ρ(g) W_oi(g⁻¹v), f_i(x + v)⟩ + b_o.

    ⟨·,·⟩ is the sum over blades. Arguments as of `GroupConv`.

    Shape:
        (batch, in_channels · blade, *grid) -> (batch, out_channels · element, *grid), blades and elements fastest.
    """

    def _components(self, points: LatticeGroup, algebra: CliffordAlgebra) -> tuple[Tensor, Tensor | None]:
        return points.blades(algebra)

    def _fan(self) -> int:
        return self.components.shape[1]

    def _padded(self, x: Tensor) -> Tensor:
        return self.padding(x.unflatten(1, (-1, self.components.shape[1]))).flatten(1, 2)


class ProjectionConv(GroupConv):
    """Convolution from G-fields to multivectors, y_o(x) = Σ_i Σ_h Σ_v ρ(h) W_oi(h⁻¹v) f_i(x + v, h) + b_o.

    The bias is a scalar: no other grade admits one. Arguments as of `GroupConv`.

    Shape:
        (batch, in_channels · element, *grid) -> (batch, out_channels · blade, *grid), elements and blades fastest.
    """

    def _components(self, points: LatticeGroup, algebra: CliffordAlgebra) -> tuple[Tensor, Tensor | None]:
        return points.blades(algebra)

    def _arranged(self, turns: Tensor) -> Tensor:
        return turns.permute(0, 3, 1, 2, 4)

    def _biased(self, y: Tensor) -> Tensor:
        return add_scalar_bias(y, self.bias)


class RegularNorm(nn.Module):
    """One mean and one magnitude for all channels, elements and points of a sample; a scale and shift per channel.

    Args:
        channels: G-fields.

    Shape:
        (batch, channels · element, *grid), elements fastest, to the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise G-fields."""
        return self.norm(x.unflatten(1, (self.norm.num_channels, -1)).flatten(2)).view(x.shape)


def regular_norm(name: str | None, channels: int) -> nn.Module:
    """A norm of G-fields: "layer" (`RegularNorm`) or "none".

    Raises:
        ValueError: another name.
    """
    match name:
        case "layer":
            return RegularNorm(channels)
        case "none" | None:
            return nn.Identity()
    raise ValueError(f"`norm` (={name!r}) must be 'layer' or 'none'.")


def pad_regular(x: Tensor, width: tuple[int, int], modes: Sequence[tuple[str, str]], mirrors: Tensor) -> Tensor:
    """Extend G-fields (batch, channel · element, *grid) by ghost cells on every grid axis, see `GroupConv`.

    Args:
        x: the fields.
        width: ghost cells before and after.
        modes: the modes of `Padding` at both sides of each axis.
        mirrors: as those of `LatticeGroup`.
    """
    for axis, (sides, mirror) in enumerate(zip(modes, mirrors, strict=True)):
        place = x.ndim - len(modes) + axis
        wide = pad_axis(x, place, *width, sides)
        if any(width) and set(sides) & set(_MIRRORS):
            low, high = wide.narrow(place, 0, width[0]), wide.narrow(place, wide.shape[place] - width[1], width[1])
            wide = torch.cat([_reflected(low, sides[0], mirror), x, _reflected(high, sides[1], mirror)], place)
        x = wide
    return x


def _reflected(ghosts: Tensor, mode: str, mirror: Tensor) -> Tensor:
    """What a mirror does to the elements of ghost cells that are in their places already."""
    if mode not in _MIRRORS:
        return ghosts
    reflected = ghosts.unflatten(1, (-1, len(mirror))).index_select(2, mirror).flatten(1, 2)
    return reflected if mode == "mirror" else -reflected
