"""CS-U-Net: Clifford-steerable convolutions on several scales."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import level_widths
from cliffsteer.models.csresnet import CSBlock
from cliffsteer.nn import MVGELU, Downsample, MVLinear, Upsample


class CSUNet(nn.Module):
    """Clifford-steerable U-Net: blocks on grids of h, 2h, 4h, ... and back, with skips; O(p, q)-equivariant.

    Grids are halved by block means and doubled by linear interpolation, which commute with the point symmetries of a
    cell-centred grid; strided convolutions do not. So its error under these symmetries is rounding, and so it is, on a
    periodic grid, under shifts by 2^(levels - 1) cells. With shifts by fewer cells, which cut the blocks, the network
    does not commute; ``blur`` makes that error several times smaller.

        stem: 1×1, GELU, 1×1, GELU
        down: [blocks, block mean, 1×1] on each level but the last; blocks on the last
        up:   [linear interpolation, concatenate the level's skip, 1×1, blocks] on each level above
        head: 1×1, GELU, 1×1

    Args:
        algebra: the algebra; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: multivectors on the finest level; each coarser level has ``growth`` times as many.
        blocks: number of blocks on each level, the finest first; grids must have multiples of 2^(levels - 1) cells.
        growth: factor of the channels from level to level.
        kernel_size: points along each axis of the blocks' convolutions, odd.
        kernel: name of the kernel.
        kernel_options: its options.
        norm: "layer", "group", "reference" or "none", see `cliffsteer.nn.norm.layer_norm`.
        nonlinearity: of the blocks, "gelu" or "product", as for `CSResNet`.
        padding: a mode of `Padding`, one for all, per axis or side, or a Grid.
        blur: how often fields are filtered with (1, 2, 1)/4 before their grid is halved, as by `Downsample`.
        strategy: how the convolutions are carried out, as for `CliffordSteerableConv`.

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
        hidden_channels: int = 16,
        blocks: Sequence[int] = (1, 1, 1),
        growth: float = 2,
        kernel_size: int = 5,
        kernel: str = "complete",
        kernel_options: Mapping[str, Any] | None = None,
        norm: str | None = "group",
        nonlinearity: str = "gelu",
        padding: Any = "zeros",
        blur: int = 0,
        strategy: str = "auto",
    ):
        super().__init__()
        conv = {"kernel": kernel, "kernel_options": kernel_options, "padding": padding, "strategy": strategy}
        widths = level_widths(hidden_channels, blocks, growth)

        def level(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(
                *(CSBlock(algebra, width, kernel_size, norm, nonlinearity, **conv) for _ in range(count))
            )

        steps = list(itertools.pairwise(widths))
        self.stem = nn.Sequential(
            MVLinear(algebra, in_channels, widths[0]), MVGELU(), MVLinear(algebra, widths[0], widths[0]), MVGELU()
        )
        self.down = nn.ModuleList(level(width, count) for width, count in zip(widths, blocks, strict=True))
        self.coarser = nn.ModuleList(
            nn.Sequential(Downsample(algebra, 2, blur, padding), MVLinear(algebra, *step)) for step in steps
        )
        self.finer = Upsample(algebra, padding=padding)
        self.merge = nn.ModuleList(MVLinear(algebra, fine + coarse, fine) for fine, coarse in steps)
        self.up = nn.ModuleList(level(width, count) for width, count in zip(widths[:-1], blocks[:-1], strict=True))
        self.head = nn.Sequential(
            MVLinear(algebra, widths[0], widths[0]), MVGELU(), MVLinear(algebra, widths[0], out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        x, skips = self.stem(x), []
        for blocks, coarser in zip(self.down, self.coarser, strict=False):
            skips.append(blocks(x))
            x = coarser(skips[-1])
        x = self.down[-1](x)
        for merge, blocks in zip(reversed(self.merge), reversed(self.up), strict=True):
            x = blocks(merge(torch.cat([skips.pop(), self.finer(x)], 1)))
        return self.head(x)
