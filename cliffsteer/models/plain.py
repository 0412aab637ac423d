"""What networks on real channels share: convolutions with free kernels, a norm, the frame of a residual network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve
from cliffsteer.grid import Grid
from cliffsteer.models.checks import count_blocks
from cliffsteer.nn.padding import Padding, padding_modes

_PLAIN = {"mirror": "symmetric", "conductor": "symmetric"}
Conv = Callable[[int, int, int], nn.Module]
"""Makes a convolution of (in_channels, out_channels, kernel_size) that keeps the grid."""


class PlainConv(nn.Module):
    """Convolution of real channels (batch, channel, *grid) with a free kernel, on 1 to 4 grid axes.

    Args:
        dim: number of grid axes.
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: points along each axis, odd.
        padding: "zeros", "periodic" or "symmetric", or one per axis or side; or a Grid, where walls that mirror turn
            no components.
        stride: step between output points; the grid has one cell for each of them.
        dilation: step between kernel points.

    Raises:
        ValueError: an even kernel size, or a padding that turns vectors.
    """

    def __init__(
        self,
        dim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: Any,
        stride: int = 1,
        dilation: int = 1,
    ):
        super().__init__()
        check_kernel_size(kernel_size)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[min(dim, 3) - 1](in_channels, out_channels, 1)
        self.dim, self.stride, self.dilation = dim, stride, dilation
        self.weight = nn.Parameter(conv.weight.new_empty(out_channels, in_channels, *[kernel_size] * dim))
        self.bias = nn.Parameter(conv.bias.new_zeros(out_channels))
        if isinstance(padding, Grid):
            padding = [[_PLAIN.get(mode, mode) for mode in sides] for sides in padding_modes(padding, dim)]
        self.padding = Padding(CliffordAlgebra((1,) * dim), kernel_size // 2 * dilation, padding)
        if any(mode in ("mirror", "conductor") for modes in self.padding.modes for mode in modes):
            raise ValueError(
                f"`padding` (={padding!r}) mirrors a side, which turns vectors, but plain channels have none: use"
                " 'zeros', 'periodic' or 'symmetric', or one of them per axis or side."
            )
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve real channels."""
        size = self.weight.shape[-1]
        # a dilated kernel may span more than the grid, as long as every tap meets it somewhere
        check_reach(x.shape[2:], size if self.dilation == 1 else size // 2 * self.dilation + 1)
        y = convolve(self.padding(x.unsqueeze(2)).squeeze(2), self.weight, self.stride, self.dilation)
        return y + self.bias.view(-1, *[1] * self.dim)


class ResidualBlock(nn.Module):
    """conv, norm, GELU, conv, norm, + x, GELU, on real channels."""

    def __init__(self, channels: int, kernel_size: int, norm: str | None, conv: Conv, components: int):
        super().__init__()
        self.conv1 = conv(channels, channels, kernel_size)
        self.norm1 = plain_norm(norm, channels * components)
        self.conv2 = conv(channels, channels, kernel_size)
        self.norm2 = plain_norm(norm, channels * components)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to real channels."""
        y = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(y)) + x)


class ResidualNetwork(nn.Module):
    """1×1, GELU, 1×1, GELU; residual blocks; 1×1, GELU, 1×1, on the components of multivectors as real channels.

    Args:
        conv: makes the convolutions.
        channels: channels in, between and out, as ``conv`` counts them.
        blocks: number of blocks in each stage.
        kernel_size: points along each axis of the blocks' convolutions, odd.
        norm: "layer" or "none".
        n_blades: components of a multivector.
        components: real channels of one channel of ``conv``.

    Shape:
        (batch, in, blade, *grid) -> (batch, out, blade, *grid).
    """

    def __init__(
        self,
        conv: Conv,
        channels: tuple[int, int, int],
        blocks: Sequence[int],
        kernel_size: int,
        norm: str | None,
        n_blades: int,
        components: int = 1,
    ):
        super().__init__()
        into, width, out = channels
        n_blocks = count_blocks(width, blocks)
        check_kernel_size(kernel_size)
        self.n_blades = n_blades
        self.stem = nn.Sequential(conv(into, width, 1), nn.GELU(), conv(width, width, 1), nn.GELU())
        self.blocks = nn.Sequential(
            *(ResidualBlock(width, kernel_size, norm, conv, components) for _ in range(n_blocks))
        )
        self.head = nn.Sequential(conv(width, width, 1), nn.GELU(), conv(width, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x.flatten(1, 2)))).unflatten(1, (-1, self.n_blades))


def plain_norm(name: str | None, channels: int) -> nn.Module:
    """A norm of real channels: "layer" (group norm with one group: all channels of a sample together) or "none".

    Raises:
        ValueError: another name.
    """
    match name:
        case "layer":
            return nn.GroupNorm(1, channels)
        case "none" | None:
            return nn.Identity()
    raise ValueError(f"`norm` (={name!r}) must be 'layer' or 'none'.")


def check_kernel_size(kernel_size: int) -> None:
    """Raise unless a kernel has a centre."""
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise ValueError(f"`kernel_size` (={kernel_size}) must be odd, so that input and output share one grid.")
