"""CS-ResNet: a residual network of Clifford-steerable convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import check_dilations, count_blocks
from cliffsteer.nn import MVGELU, CliffordSteerableConv, MVLinear
from cliffsteer.nn.norm import layer_norm
from cliffsteer.nn.product import create_nonlinearity


class CSBlock(nn.Module):
    """conv, norm, nonlinearity, conv, norm, + x, GELU."""

    def __init__(
        self,
        algebra: CliffordAlgebra,
        channels: int,
        kernel_size: int,
        norm: str | None,
        nonlinearity: str = "gelu",
        dilations: Sequence[int] = (1, 1),
        **conv: Any,
    ):
        super().__init__()
        first, second = dilations
        self.conv1 = CliffordSteerableConv(algebra, channels, channels, kernel_size, dilation=first, **conv)
        self.norm1 = layer_norm(norm, algebra, channels)
        self.activation1 = create_nonlinearity(nonlinearity, algebra, channels)
        self.conv2 = CliffordSteerableConv(algebra, channels, channels, kernel_size, dilation=second, **conv)
        self.norm2 = layer_norm(norm, algebra, channels)
        self.activation = MVGELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to a field of multivectors."""
        y = self.activation1(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(y)) + x)


class CSResNet(nn.Module):
    """Clifford-steerable ResNet (Zhdanov et al., ICML 2024): E(p, q)-equivariant field-to-field map.

    1×1, GELU, 1×1, GELU; blocks [conv, norm, nonlinearity, conv, norm, + x, GELU]; 1×1, GELU, 1×1.

    Args:
        algebra: the algebra; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: multivectors between.
        blocks: number of blocks in each stage (the stages are alike, as in the paper).
        kernel_size: points along each axis of the blocks' convolutions, odd.
        dilations: step between kernel points of the blocks' convolutions, taken in turn, two in a block.
        kernel: name of the kernel.
        kernel_options: its options.
        norm: "layer", "group", "reference" or "none", see `cliffsteer.nn.norm.layer_norm`.
        nonlinearity: of the blocks, "gelu" (scalar gates, as in the paper) or "product" (geometric products first, see
            `ProductGELU`).
        padding: as for `CliffordSteerableConv`.
        pointwise: the 1×1 maps, as "linear" (MVLinear: all that is steerable at a point) or "kernel" (convolutions with
            an implicit kernel at the origin, as in the published code).
        strategy: how the blocks' convolutions are carried out, as for `CliffordSteerableConv`.

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
        hidden_channels: int = 48,
        blocks: Sequence[int] = (2, 2, 2, 2),
        kernel_size: int = 7,
        dilations: Sequence[int] = (1,),
        kernel: str = "implicit",
        kernel_options: Mapping[str, Any] | None = None,
        norm: str | None = "group",
        nonlinearity: str = "gelu",
        padding: Any = "zeros",
        pointwise: str = "linear",
        strategy: str = "auto",
    ):
        super().__init__()
        if pointwise not in ("linear", "kernel"):
            raise ValueError(f"`pointwise` (={pointwise!r}) must be 'linear' or 'kernel'.")
        n_blocks = count_blocks(hidden_channels, blocks)
        check_dilations(dilations)
        steps = itertools.cycle(dilations)
        conv = {"kernel": kernel, "kernel_options": kernel_options, "padding": padding}

        def block() -> CSBlock:
            pair = next(steps), next(steps)
            return CSBlock(algebra, hidden_channels, kernel_size, norm, nonlinearity, pair, strategy=strategy, **conv)

        def mix(into: int, out: int) -> nn.Module:
            if pointwise == "linear":
                return MVLinear(algebra, into, out)
            return CliffordSteerableConv(algebra, into, out, 1, **conv)

        self.stem = nn.Sequential(
            mix(in_channels, hidden_channels), MVGELU(), mix(hidden_channels, hidden_channels), MVGELU()
        )
        self.blocks = nn.Sequential(*(block() for _ in range(n_blocks)))
        self.head = nn.Sequential(mix(hidden_channels, hidden_channels), MVGELU(), mix(hidden_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x)))
