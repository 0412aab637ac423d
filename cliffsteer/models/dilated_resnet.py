"""Dilated ResNet: a plain baseline that sees far on one grid."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import check_dilations, count_blocks
from cliffsteer.models.plain import PlainConv, plain_norm


class DilatedBlock(nn.Module):
    """x + [conv, norm, GELU] for each dilation, on real channels."""

    def __init__(
        self, dim: int, channels: int, kernel_size: int, dilations: Sequence[int], norm: str | None, padding: Any
    ):
        super().__init__()
        conv = functools.partial(PlainConv, dim, channels, channels, kernel_size, padding)
        layers = [(conv(dilation=step), plain_norm(norm, channels), nn.GELU()) for step in dilations]
        self.layers = nn.Sequential(*(layer for group in layers for layer in group))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to real channels."""
        return x + self.layers(x)


class DilatedResNet(nn.Module):
    """Dilated ResNet (Stachenfeld et al., "Learned coarse models for efficient turbulence simulation", ICLR 2022).

    conv; blocks [x + (conv, norm, GELU) with dilations 1, 2, 4, 8, 4, 2, 1]; conv. Norm and GELU in place of the
    paper's bare ReLU, which Gupta and Brandstetter (2022) found to serve it well.

    Args:
        algebra: the algebra; it only tells the number of blades and of grid axes.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: real channels between.
        blocks: number of blocks in each stage (the stages are alike).
        dilations: step between kernel points of each convolution of a block.
        kernel_size: points along each axis, odd.
        norm: "layer" (all channels of a sample together) or "none".
        padding: "zeros", "periodic" or "symmetric", or one per axis or side.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ValueError: an option out of its range.
        RuntimeError: a grid that a dilated kernel's taps leave on all of its points.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 48,
        blocks: Sequence[int] = (4,),
        dilations: Sequence[int] = (1, 2, 4, 8, 4, 2, 1),
        kernel_size: int = 3,
        norm: str | None = "layer",
        padding: Any = "zeros",
    ):
        super().__init__()
        count, dim, width = count_blocks(hidden_channels, blocks), algebra.dim, hidden_channels
        check_dilations(dilations)
        self.n_blades = algebra.n_blades
        self.stem = PlainConv(dim, in_channels * algebra.n_blades, width, kernel_size, padding)
        self.blocks = nn.Sequential(
            *(DilatedBlock(dim, width, kernel_size, dilations, norm, padding) for _ in range(count))
        )
        self.head = PlainConv(dim, width, out_channels * algebra.n_blades, kernel_size, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x.flatten(1, 2)))).unflatten(1, (-1, self.n_blades))
