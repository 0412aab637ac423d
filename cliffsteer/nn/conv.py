"""The Clifford-steerable convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve, pad_axis
from cliffsteer.nn.kernels import create_kernel
from cliffsteer.nn.linear import add_scalar_bias, check_channels
from cliffsteer.nn.padding import Padding


class CliffordSteerableConv(nn.Module):
    """Convolution of multivector fields with a steerable kernel: g(x) = Σ_v K(v) f(x + v) + b.

    Equivariant under translations and O(p, q) (Zhdanov et al. 2024, section 3): exactly under the lattice's own
    symmetries for odd kernels and stride 1.

    Args:
        algebra: the algebra; one grid axis per basis vector.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        kernel: a kernel's name ("implicit") or a ready kernel module with the channels and size given here.
        kernel_options: options of a kernel given by name.
        stride: step between output points.
        dilation: step between kernel points.
        padding: a mode of `Padding` (one, per axis, per side, or a Grid); "valid" for none; "xla_same" for the zero
            padding rule of XLA, which differs for strides and even kernels.
        bias: learn a scalar per output channel.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid').

    Raises:
        ValueError: a bad kernel size, stride, dilation, padding or kernel.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        kernel: str | nn.Module = "implicit",
        kernel_options: Mapping[str, Any] | None = None,
        stride: int = 1,
        dilation: int = 1,
        padding: Any = "zeros",
        bias: bool = True,
    ):
        super().__init__()
        if stride < 1 or dilation < 1:
            raise ValueError(f"`stride` (={stride}) and `dilation` (={dilation}) must be at least 1.")
        self.algebra, self.in_channels, self.out_channels = algebra, in_channels, out_channels
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        if isinstance(kernel, str):
            kernel = create_kernel(kernel, algebra, in_channels, out_channels, kernel_size, **(kernel_options or {}))
        elif kernel_options:
            raise ValueError("`kernel_options` goes with a kernel given by name; configure the module itself.")
        self.kernel = kernel
        self.padding = _Padded(algebra, (kernel_size - 1) * dilation, stride, padding)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field of multivectors."""
        check_channels(self, x, self.in_channels, self.algebra)
        torch._check(
            x.ndim == 3 + self.algebra.dim,
            lambda: (
                f"`x` has shape {tuple(x.shape)}, expected {self.algebra.dim} grid axes after (batch, channel, blade)."
            ),
        )
        check_reach(x.shape[3:], (self.kernel_size - 1) * self.dilation + 1)
        padded = self.padding(x)
        y = convolve(padded.flatten(1, 2), self.kernel(), self.stride, self.dilation)
        return add_scalar_bias(y.unflatten(1, (self.out_channels, self.algebra.n_blades)), self.bias)

    def extra_repr(self) -> str:
        """Channels, size and steps."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride},"
            f" dilation={self.dilation}"
        )


class _Padded(nn.Module):
    """The padding of a convolution whose kernel spans ``reach`` + 1 cells."""

    def __init__(self, algebra: CliffordAlgebra, reach: int, stride: int, mode: Any):
        super().__init__()
        self.reach, self.stride, self.dim = reach, stride, algebra.dim
        self.xla = mode == "xla_same"
        self.ghosts = None if mode in ("valid", "xla_same") else Padding(algebra, reach // 2, mode)

    def forward(self, x: Tensor) -> Tensor:
        """Pad a field of multivectors."""
        if self.xla:
            for axis in range(x.ndim - self.dim, x.ndim):
                length = x.shape[axis]
                total = max((-(-length // self.stride) - 1) * self.stride + self.reach + 1 - length, 0)
                x = pad_axis(x, axis, total // 2, total - total // 2, ("zeros", "zeros"))
        return x if self.ghosts is None else self.ghosts(x)
