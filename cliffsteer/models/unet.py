"""U-Net: the plain baseline on several scales."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import repeat_cells
from cliffsteer.models.checks import level_widths
from cliffsteer.models.plain import Conv, PlainConv, plain_norm


class PreNormBlock(nn.Module):
    """x + (norm, GELU, conv, norm, GELU, conv), on real channels; a 1×1 map on the skip where their number changes."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: str | None, conv: Conv):
        super().__init__()
        self.norm1, self.norm2 = plain_norm(norm, in_channels), plain_norm(norm, out_channels)
        self.conv1 = conv(in_channels, out_channels, kernel_size)
        self.conv2 = conv(out_channels, out_channels, kernel_size)
        self.skip = conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to real channels."""
        y = self.conv1(self.activation(self.norm1(x)))
        return self.skip(x) + self.conv2(self.activation(self.norm2(y)))


class Finer(nn.Module):
    """Each cell repeated twice along each axis, and a convolution."""

    def __init__(self, dim: int, conv: nn.Module):
        super().__init__()
        self.dim, self.conv = dim, conv

    def forward(self, x: Tensor) -> Tensor:
        """Bring real channels to the finer grid."""
        return self.conv(repeat_cells(x, 2, self.dim))


class UNet(nn.Module):
    """Modern U-Net (Gupta and Brandstetter, "Towards multi-spatiotemporal-scale generalized PDE modeling", 2022).

        stem: conv
        down: [blocks, strided conv] on each level but the last; blocks on the last
        middle: two blocks
        up:   [one block more than on the way down, conv on the doubled grid] back to the first level
        head: norm, GELU, conv

    Blocks have the norm first. Every block and stem and strided convolution of the way down hands its output to its
    counterpart on the way up. Cells are repeated before the convolution that doubles a grid, where the paper
    transposes one, so that no pattern of the grid is seen.

    Args:
        algebra: the algebra; it only tells the number of blades and of grid axes.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: real channels on the finest level; each coarser level has ``growth`` times as many.
        blocks: number of blocks on each level, the finest first; grids must have multiples of 2^(levels - 1) cells.
        growth: factor of the channels from level to level.
        kernel_size: points along each axis, odd.
        norm: "layer" (all channels of a sample together) or "none".
        padding: "zeros", "periodic" or "symmetric", or one per axis or side.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ValueError: an option out of its range.
        RuntimeError: a grid that cannot be halved often enough.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 32,
        blocks: Sequence[int] = (2, 2, 2),
        growth: float = 2,
        kernel_size: int = 3,
        norm: str | None = "layer",
        padding: Any = "zeros",
    ):
        super().__init__()
        widths = level_widths(hidden_channels, blocks, growth)
        self.n_blades, self.dim, self.factor = algebra.n_blades, algebra.dim, 2 ** (len(blocks) - 1)
        conv = functools.partial(PlainConv, algebra.dim, padding=padding)
        width = widths[0]
        self.stem = conv(in_channels * algebra.n_blades, width, kernel_size)
        skips, down, up = [width], [], []
        for level, count in enumerate(blocks):
            for _ in range(count):
                down.append(PreNormBlock(width, widths[level], kernel_size, norm, conv))
                width = widths[level]
                skips.append(width)
            if level + 1 < len(blocks):
                down.append(conv(width, width, kernel_size, stride=2))
                skips.append(width)
        self.down = nn.ModuleList(down)
        self.middle = nn.Sequential(*(PreNormBlock(width, width, kernel_size, norm, conv) for _ in range(2)))
        for level in reversed(range(len(blocks))):
            for _ in range(blocks[level] + 1):
                up.append(PreNormBlock(width + skips.pop(), widths[level], kernel_size, norm, conv))
                width = widths[level]
            if level:
                up.append(Finer(algebra.dim, conv(width, width, kernel_size)))
        self.up = nn.ModuleList(up)
        self.head = nn.Sequential(
            plain_norm(norm, width), nn.GELU(), conv(width, out_channels * algebra.n_blades, kernel_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        grid = tuple(x.shape[3:])
        if any(length % self.factor for length in grid):
            raise RuntimeError(f"the grid {grid} must have multiples of {self.factor} cells on every axis.")
        x = self.stem(x.flatten(1, 2))
        skips = [x]
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = self.middle(x)
        for layer in self.up:
            x = layer(x if isinstance(layer, Finer) else torch.cat([x, skips.pop()], 1))
        return self.head(x).unflatten(1, (-1, self.n_blades))
