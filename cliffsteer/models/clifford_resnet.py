"""Clifford ResNet: convolutions by the geometric product, without steerability."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve
from cliffsteer.models.plain import ResidualNetwork, check_kernel_size
from cliffsteer.nn.padding import Padding


class CliffordConv(nn.Module):
    """Convolution by geometric products, g_o(x) = Σ_i Σ_v w_oi(v) f_i(x + v) + b_o, with free multivectors w, b.

    A multivector at a tap is n_blades numbers where a free matrix between multivectors has n_blades². The weights are
    expanded by the multiplication table, K[(o, j), (i, l)] = Σ_a w[o, i, a] cayley[a, j, l], to one real convolution.
    It is equivariant under translations only: the taps are free. Source: Brandstetter et al. (2023), section 3.

    Args:
        algebra: the algebra, of any signature; one grid axis per basis vector.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        padding: a mode of `Padding`, one for all, per axis or side, or a Grid.

    Shape:
        (batch, in_channels · blade, *grid) -> (batch, out_channels · blade, *grid), blades fastest.

    Raises:
        ValueError: an even kernel size, or an unknown padding.
    """

    def __init__(
        self, algebra: CliffordAlgebra, in_channels: int, out_channels: int, kernel_size: int, padding: Any = "zeros"
    ):
        super().__init__()
        check_kernel_size(kernel_size)
        size = [kernel_size] * algebra.dim
        self.n_blades = algebra.n_blades
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, algebra.n_blades, *size))
        self.bias = nn.Parameter(torch.zeros(out_channels * algebra.n_blades))
        self.padding = Padding(algebra, kernel_size // 2, padding)
        self.register_buffer("cayley", algebra.cayley.float(), persistent=False)
        # each blade of the product is a sum of n_blades terms from each tap and channel
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels * self.weight[0, 0].numel()))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field of multivectors."""
        check_reach(x.shape[2:], self.weight.shape[-1])
        wide = self.padding(x.unflatten(1, (-1, self.n_blades))).flatten(1, 2)
        y = convolve(wide, self.kernel())
        return y + self.bias.view(-1, *[1] * (x.ndim - 2))

    def kernel(self) -> Tensor:
        """The real kernel, (out_channels · blade, in_channels · blade, *k)."""
        return torch.einsum("oia...,ajl->ojil...", self.weight, self.cayley).flatten(2, 3).flatten(0, 1)


class CliffordResNet(ResidualNetwork):
    """Clifford ResNet (Brandstetter et al., ICLR 2023): the ResNet whose weights are multivectors; not steerable.

    The architecture of `ResNet` with a `CliffordConv` in place of each convolution, 1×1 maps too; group norm and GELU
    act on the components. It knows that components belong together, not how they turn.

    Args:
        algebra: the algebra, of any signature; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: multivectors between.
        blocks: number of blocks in each stage.
        kernel_size: points along each axis, odd.
        norm: "layer" (all components of a sample together) or "none".
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
        hidden_channels: int = 32,
        blocks: Sequence[int] = (2, 2, 2, 2),
        kernel_size: int = 7,
        norm: str | None = "layer",
        padding: Any = "zeros",
    ):
        channels = in_channels, hidden_channels, out_channels
        conv = functools.partial(CliffordConv, algebra, padding=padding)
        super().__init__(conv, channels, blocks, kernel_size, norm, algebra.n_blades, algebra.n_blades)
