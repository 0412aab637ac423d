"""Coarser and finer grids, in ways that commute with the symmetries of a cell-centred grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import block_mean, insert_zeros, repeat_cells
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.padding import Padding, padding_modes


class Downsample(nn.Module):
    """Mean over blocks of factorⁿ cells: the cell averages of the coarser grid.

    Reflections and turns of the grid map blocks onto blocks, so the symmetry is kept exactly, which a strided
    convolution with an even stride does not do: it prefers the first cell of each block.

    Translations commute with it by whole blocks. A binomial filter before it takes off most of the short waves that the
    coarser grid would show as long ones, so that they nearly do by single cells as well (Zhang, "Making convolutional
    networks shift-invariant again", ICML 2019).

    Args:
        algebra: the algebra.
        factor: cells of each axis in a block.
        blur: how often the field is filtered with (1, 2, 1)/4 along each axis before.
        padding: what is beyond the walls for the filter, a mode of `Padding`.

    Shape:
        (batch, channel, blade, *grid) -> (batch, channel, blade, *grid / factor).

    Raises:
        ValueError: a factor below 1, a blur below 0, an unknown padding.
        RuntimeError: an axis that is no multiple of the factor.
    """

    def __init__(self, algebra: CliffordAlgebra, factor: int = 2, blur: int = 0, padding: Any = "zeros"):
        super().__init__()
        check_algebra(algebra)
        self.dim, self.factor, self.blur = algebra.dim, whole("factor", factor), whole("blur", blur, 0)
        self.padding = Padding(algebra, self.blur, padding) if self.blur else None

    def forward(self, x: Tensor) -> Tensor:
        """Average a field over blocks."""
        if self.padding is not None:
            x = self.padding(x)
            for axis in range(x.ndim - self.dim, x.ndim):
                for _ in range(self.blur):
                    cells = x.shape[axis] - 2
                    before, here, after = (x.narrow(axis, start, cells) for start in range(3))
                    x = torch.lerp(here, (before + after) / 2, 0.5)
        return block_mean(x, self.factor, self.dim)

    def extra_repr(self) -> str:
        """Factor and blur."""
        return f"factor={self.factor}, blur={self.blur}"


class Upsample(nn.Module):
    """Values at the centres of factorⁿ times as many cells, from the coarse cells around them.

    "nearest" repeats each cell, the adjoint of `Downsample` up to a factor; "linear" interpolates between the centres
    of coarse cells along each axis, with ghost cells from the padding at the walls, so that a field linear in position
    stays so and no blocks are seen. Both keep the symmetries of the grid exactly.

    Args:
        algebra: the algebra.
        factor: fine cells along each axis in a coarse one.
        mode: "nearest" or "linear".
        padding: what is beyond the walls for "linear", a mode of `Padding` other than "zeros" for fields that do not
            vanish there.

    Shape:
        (batch, channel, blade, *grid) -> (batch, channel, blade, *grid · factor).

    Raises:
        ValueError: a factor below 1, an unknown mode or padding.
    """

    def __init__(self, algebra: CliffordAlgebra, factor: int = 2, mode: str = "linear", padding: Any = "zeros"):
        super().__init__()
        if mode not in ("nearest", "linear"):
            raise ValueError(f"`mode` (={mode!r}) must be 'nearest' or 'linear'.")
        check_algebra(algebra)
        self.dim, self.factor, self.mode = algebra.dim, whole("factor", factor), mode
        self.padding = Padding(algebra, 1, padding) if mode == "linear" else None

    def forward(self, x: Tensor) -> Tensor:
        """Bring a field to the finer grid."""
        if self.padding is None:
            return repeat_cells(x, self.factor, self.dim)
        x, first = self.padding(x), x.ndim - self.dim
        for axis in range(first, x.ndim):
            x = self._interpolate(x, axis)
        return x

    def _interpolate(self, x: Tensor, axis: int) -> Tensor:
        """Linear interpolation along one axis, which loses its ghost cells."""
        cells = x.shape[axis] - 2
        before, here, after = (x.narrow(axis, start, cells) for start in range(3))
        parts = []
        for k in range(self.factor):
            shift = (2 * k + 1 - self.factor) / (2 * self.factor)  # of the fine centre, in coarse cells
            parts.append(torch.lerp(here, after if shift > 0 else before, abs(shift)))
        return torch.stack(parts, axis + 1).flatten(axis, axis + 1)

    def extra_repr(self) -> str:
        """Factor and mode."""
        return f"factor={self.factor}, mode={self.mode!r}"


class CliffordSteerableConvTranspose(nn.Module):
    """Transposed convolution g(y) = s^{n/2} Σ_x K(sx - y + o) f(x) + b onto a grid that is s times finer.

    Zeros are put between the cells, and the result is convolved with a steerable kernel; the factor keeps the variance.
    It is, for the metric's adjoint kernel K̃(v) = K(-v)†, the adjoint of the convolution with stride s. An odd stride
    puts each coarse cell at the centre of its block, o = (s - 1)/2, and keeps the symmetries of the grid. An even block
    has no centre, so only a periodic grid, which has symmetries about its points, keeps them; elsewhere use `Upsample`
    and a convolution.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd; at least the stride, or some fine cells see no coarse one.
        stride: fine cells along each axis in a coarse one.
        padding: as for `CliffordSteerableConv`, on the fine grid.
        options: further options of `CliffordSteerableConv`: kernel, kernel_options, dilation, bias, strategy.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid · stride).

    Raises:
        ValueError: a stride below 1, a kernel smaller than the stride, or an even stride on a grid with walls.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 2,
        padding: Any = "periodic",
        **options: Any,
    ):
        super().__init__()
        check_algebra(algebra)
        stride, kernel_size = whole("stride", stride), whole("kernel_size", kernel_size)
        if kernel_size < stride:
            raise ValueError(
                f"`kernel_size` (={kernel_size}) must be at least `stride` (={stride}): otherwise some cells of the"
                " fine grid are reached by no cell of the coarse one."
            )
        if padding in ("valid", "xla_same"):
            raise ValueError(f"`padding` (={padding!r}) of a transposed convolution must keep the grid's size.")
        walls = any(mode != "periodic" for pair in padding_modes(padding, algebra.dim) for mode in pair)
        if stride % 2 == 0 and walls:
            raise ValueError(
                f"`stride` (={stride}) must be odd unless all axes are periodic: an even block of cells has no centre"
                " to put the coarse value at, which breaks reflections; use Upsample and a convolution instead."
            )
        self.dim, self.stride = algebra.dim, stride
        self.conv = CliffordSteerableConv(algebra, in_channels, out_channels, kernel_size, padding=padding, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Bring a field to the finer grid."""
        return self.conv(insert_zeros(x, self.stride, self.dim) * self.stride ** (self.dim / 2))

    def extra_repr(self) -> str:
        """The stride."""
        return f"stride={self.stride}"
