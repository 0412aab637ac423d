"""Steerable ResNet: the ResNet with group convolutions, equivariant under the lattice's point group."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import count_blocks
from cliffsteer.nn.group_conv import GroupConv, LiftingConv, ProjectionConv, regular_norm


class GroupBlock(nn.Module):
    """conv, norm, GELU, conv, norm, + x, GELU, on G-fields."""

    def __init__(self, conv: functools.partial[GroupConv], channels: int, kernel_size: int, norm: str | None):
        super().__init__()
        self.conv1 = conv(channels, channels, kernel_size)
        self.norm1 = regular_norm(norm, channels)
        self.conv2 = conv(channels, channels, kernel_size)
        self.norm2 = regular_norm(norm, channels)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to G-fields."""
        y = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(y)) + x)


class SteerableResNet(nn.Module):
    """Steerable ResNet (Cohen and Welling, ICML 2016): the ResNet on functions on the lattice's point group.

    The architecture of `ResNet` with group convolutions: a 1×1 map lifts multivectors to G-fields, of one number for
    each element of the group (8 on the plane, 48 in space, 16 on R^{1,2}), one at the end turns them back. Equivariant
    under translations and the point group, exactly, as the networks of Weiler and Cesa, "General E(2)-equivariant
    steerable CNNs" (NeurIPS 2019) are; unlike with steerable kernels, other rotations and boosts are not seen.

    Args:
        algebra: the algebra, of any signature; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: G-fields between; each is as many real channels as the group has elements.
        blocks: number of blocks in each stage.
        kernel_size: points along each axis, odd.
        group: "O" (all of the lattice's point group), "SO" (rotations only) or "orthochronous".
        norm: "layer" (all channels and elements of a sample together) or "none".
        padding: a mode of `Padding`, one for all, per axis or side, or a Grid.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 8,
        blocks: Sequence[int] = (2, 2, 2, 2),
        kernel_size: int = 7,
        group: str = "O",
        norm: str | None = "layer",
        padding: Any = "zeros",
    ):
        super().__init__()
        count, width = count_blocks(hidden_channels, blocks), hidden_channels
        self.n_blades = algebra.n_blades
        conv = functools.partial(GroupConv, algebra, group=group, padding=padding)
        self.stem = nn.Sequential(
            LiftingConv(algebra, in_channels, width, 1, group), nn.GELU(), conv(width, width, 1), nn.GELU()
        )
        self.blocks = nn.Sequential(*(GroupBlock(conv, width, kernel_size, norm) for _ in range(count)))
        self.head = nn.Sequential(
            conv(width, width, 1), nn.GELU(), ProjectionConv(algebra, width, out_channels, 1, group)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x.flatten(1, 2)))).unflatten(1, (-1, self.n_blades))
