"""ResNet: the plain convolutional baseline, CS-ResNet's architecture with free kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve
from cliffsteer.models.checks import count_blocks
from cliffsteer.nn.padding import Padding


class PlainConv(nn.Module):
    """Convolution of real channels (batch, channel, *grid) with a free kernel, on 1 to 4 grid axes."""

    def __init__(self, dim: int, in_channels: int, out_channels: int, kernel_size: int, padding: Any):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[min(dim, 3) - 1](in_channels, out_channels, 1)
        self.dim = dim
        self.weight = nn.Parameter(conv.weight.new_empty(out_channels, in_channels, *[kernel_size] * dim))
        self.bias = nn.Parameter(conv.bias.new_zeros(out_channels))
        self.padding = Padding(CliffordAlgebra((1,) * dim), kernel_size // 2, padding)
        if any("mirror" in modes for modes in self.padding.modes):
            raise ValueError(
                f"`padding` (={padding!r}) mirrors a side, which turns vectors, but plain channels have none: use"
                " 'zeros', 'periodic' or 'symmetric', or one of them per axis or side."
            )
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve real channels."""
        check_reach(x.shape[2:], self.weight.shape[-1])
        y = convolve(self.padding(x.unsqueeze(2)).squeeze(2), self.weight)
        return y + self.bias.view(-1, *[1] * self.dim)


class PlainBlock(nn.Module):
    """conv, norm, GELU, conv, norm, + x, GELU, on real channels."""

    def __init__(self, dim: int, channels: int, kernel_size: int, norm: str | None, padding: Any):
        super().__init__()
        self.conv1 = PlainConv(dim, channels, channels, kernel_size, padding)
        self.norm1 = _norm(norm, channels)
        self.conv2 = PlainConv(dim, channels, channels, kernel_size, padding)
        self.norm2 = _norm(norm, channels)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to real channels."""
        y = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(y)) + x)


class ResNet(nn.Module):
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
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"`kernel_size` (={kernel_size}) must be odd, so that input and output share one grid.")
        n_blocks = count_blocks(hidden_channels, blocks)
        self.n_blades, dim = algebra.n_blades, algebra.dim
        into, out, width = in_channels * algebra.n_blades, out_channels * algebra.n_blades, hidden_channels

        def mix(a: int, b: int) -> nn.Module:
            return PlainConv(dim, a, b, 1, padding)

        self.stem = nn.Sequential(mix(into, width), nn.GELU(), mix(width, width), nn.GELU())
        self.blocks = nn.Sequential(*(PlainBlock(dim, width, kernel_size, norm, padding) for _ in range(n_blocks)))
        self.head = nn.Sequential(mix(width, width), nn.GELU(), mix(width, out))

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x.flatten(1, 2)))).unflatten(1, (-1, self.n_blades))


def _norm(name: str | None, channels: int) -> nn.Module:
    match name:
        case "layer":
            return nn.GroupNorm(1, channels)
        case "none" | None:
            return nn.Identity()
    raise ValueError(f"`norm` (={name!r}) must be 'layer' or 'none'.")
