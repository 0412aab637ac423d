"""ResNet: the plain convolutional baseline, CS-ResNet's architecture with free kernels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.plain import PlainConv, ResidualNetwork


class ResNet(ResidualNetwork):
    """Plain ResNet on the real components of multivectors: no symmetry but translations.

    The architecture of `CSResNet` with ordinary convolutions, group norm and GELU, as in the comparisons of Zhdanov et
    al. (2024) and Brandstetter et al., "Clifford neural layers for PDE modeling" (ICLR 2023).

    Args:
        algebra: the algebra; it only tells the number of blades and of grid axes.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: real channels between.
        blocks: number of blocks in each stage.
        kernel_size: points along each axis, odd.
        norm: "layer" (all channels of a sample together) or "none".
        padding: "zeros", "periodic" or "symmetric", or one per axis or side.

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
        hidden_channels: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        kernel_size: int = 7,
        norm: str | None = "layer",
        padding: Any = "zeros",
    ):
        channels = in_channels * algebra.n_blades, hidden_channels, out_channels * algebra.n_blades
        conv = functools.partial(PlainConv, algebra.dim, padding=padding)
        super().__init__(conv, channels, blocks, kernel_size, norm, algebra.n_blades)
