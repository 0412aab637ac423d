"""The Clifford-steerable convolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve, convolve_each
from cliffsteer.nn.checks import check_algebra, check_dtype, check_grid_axes, whole
from cliffsteer.nn.kernels import create_kernel
from cliffsteer.nn.kernels.base import SteerableKernel
from cliffsteer.nn.linear import add_scalar_bias, check_channels
from cliffsteer.nn.padding import Padding
from cliffsteer.nn.spectral import spectral_convolution
from cliffsteer.nn.strategy import STRATEGIES, CircularGrid, Remembered, circular_grid, exporting, faster


class CliffordSteerableConv(nn.Module):
    """Convolution of multivector fields with a steerable kernel: g(x) = Σ_v K(v) f(x + v) + b.

    Equivariant under translations and O(p, q) (Zhdanov et al. 2024, section 3): exactly under the lattice's own
    symmetries for odd kernels and stride 1.

    It is carried out directly, or in the spectrum, where the kernel's symmetry leaves little to compute and its size
    does not matter; the results agree to rounding. In evaluation without gradients the kernel (its radial values, in
    the spectrum) is kept until a parameter changes, if none requires a gradient (``requires_grad_(False)``, as in a
    loaded `Surrogate`): fused optimizers change parameters unseen. A change made through ``.data`` shows after the next
    `eval()`.

    Args:
        algebra: the algebra; one grid axis per basis vector.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        kernel: a kernel's name ("implicit", "complete", "conditional") or a ready kernel module with the channels and
            size given here.
        kernel_options: options of a kernel given by name.
        stride: step between output points.
        dilation: step between kernel points.
        padding: a mode of `Padding` (one, per axis, per side, or a Grid); "valid" for none; "xla_same" for the zero
            padding rule of XLA, which differs for strides and even kernels.
        bias: learn a scalar per output channel.
        strategy: "direct"; "spectral", for kernels that are larger than a periodic grid too; or "auto", for each input
            the one that the cost model `nn.strategy.faster` says is faster; direct in what `torch.export` makes, which
            must serve any grid, and without this library.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid').

    Raises:
        ValueError: a bad kernel size, stride, dilation, padding, kernel or strategy.
        RuntimeError: an input of another shape or dtype (the weights' own, unless under autocast), or on a grid smaller
            than the kernel where it is padded or carried out directly.
    """

    _remembered: Remembered | None = None  # never in the state: neither saved nor copied

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
        strategy: str = "auto",
    ):
        super().__init__()
        check_algebra(algebra)
        in_channels, out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        kernel_size = whole("kernel_size", kernel_size)
        self.algebra, self.in_channels, self.out_channels = algebra, in_channels, out_channels
        self.kernel_size, self.stride, self.dilation = kernel_size, whole("stride", stride), whole("dilation", dilation)
        if kernel_options is not None and not isinstance(kernel_options, Mapping):
            raise ValueError(f"`kernel_options` (={kernel_options!r}) must be options by name, as {{'layers': 2}}.")
        if isinstance(kernel, str):
            kernel = create_kernel(kernel, algebra, in_channels, out_channels, kernel_size, **(kernel_options or {}))
        elif kernel_options:
            raise ValueError("`kernel_options` goes with a kernel given by name; configure the module itself.")
        self.kernel = _checked(kernel, algebra, in_channels, out_channels, kernel_size)
        self.padding = _Padded(algebra, (kernel_size - 1) * self.dilation, self.stride, padding)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if strategy not in STRATEGIES:
            raise ValueError(f"`strategy` (={strategy!r}) must be one of {', '.join(map(repr, STRATEGIES))}.")
        if strategy == "spectral" and not self._has_spectrum:
            raise ValueError(
                "`strategy` (='spectral') needs a kernel of odd size made of radial values (implicit or complete); this"
                f" one is a {type(kernel).__name__} of size {kernel_size}; and padding other than 'xla_same' where"
                " `stride` is above 1: use 'direct' or 'auto'."
            )
        self.strategy = strategy
        self._kernel_orbits = kernel.basis.n_orbits if self._has_spectrum else 0

    @property
    def _has_spectrum(self) -> bool:
        moved = self.padding.xla and self.stride > 1  # XLA's padding then starts elsewhere
        return isinstance(self.kernel, SteerableKernel) and self.kernel_size % 2 == 1 and not moved

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field of multivectors."""
        if not torch.compiler.is_compiling():
            self._check(x)
        if self.strategy_for(x) == "spectral":
            return add_scalar_bias(self._convolve_spectrally(x), self.bias)
        wide = self.padding(x).flatten(1, 2)
        if getattr(self.kernel, "conditional", False):
            y = self._convolve_each(wide, x)
        else:
            y = convolve(wide, self._kept("direct", x), self.stride, self.dilation)
        return add_scalar_bias(y.unflatten(1, (self.out_channels, self.algebra.n_blades)), self.bias)

    def _check(self, x: Tensor) -> None:
        check_channels(self, x, self.in_channels, self.algebra)
        check_grid_axes(x, self.algebra)
        check_dtype(self, x)
        if not self.padding.xla and (self.padding.rule[0] is None or self.strategy_for(x) == "direct"):
            check_reach(x.shape[3:], self.padding.reach + 1)

    def strategy_for(self, x: Tensor) -> str:
        """The strategy taken for an input of this shape: "direct" or "spectral"."""
        grid = tuple(x.shape[3:])
        if self.strategy != "auto":
            return self.strategy
        if not self._has_spectrum or x.dtype not in (torch.float32, torch.float64) or exporting():
            return "direct"
        if torch.is_autocast_enabled(x.device.type) or min(grid) <= self.padding.reach:
            return "direct"
        circular = self._circular(grid)
        points = math.prod([-(-count // self.stride) for count in circular.counts])
        channels = (self.in_channels, self.out_channels)
        size = self.kernel.group, self.kernel_size, self._kernel_orbits
        return faster(self.algebra, *size, x.shape[0], channels, points, circular.lengths, x.device.type)

    def train(self, mode: bool = True) -> CliffordSteerableConv:
        """Set the mode and forget the kernel."""
        self._remembered = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_remembered"}

    def _convolve_spectrally(self, x: Tensor) -> Tensor:
        circular = self._circular(tuple(x.shape[3:]))
        wide = circular.embed(x, *self.padding.rule)
        if x.dtype not in (torch.float32, torch.float64):
            wide = wide.float()
        radial = self._kept("spectral", x)
        y = spectral_convolution(wide, radial, self.algebra, self.kernel.group, self.kernel_size, self.dilation)
        return circular.crop(y, self.stride).contiguous().to(x.dtype)

    def _convolve_each(self, wide: Tensor, x: Tensor) -> Tensor:
        """Convolve each sample with its own kernel."""
        with torch.autocast(x.device.type, enabled=False):
            kernels = self.kernel(x).to(wide.dtype)
        if exporting() or wide.shape[0] == 0:
            return convolve_each(wide, kernels, self.stride, self.dilation)
        apart = wide.flatten(0, 1).unsqueeze(0)  # samples as groups of channels
        y = convolve(apart, kernels.flatten(0, 1), self.stride, self.dilation, wide.shape[0])
        return y.squeeze(0).unflatten(0, (wide.shape[0], kernels.shape[1]))

    def _circular(self, grid: tuple[int, ...]) -> CircularGrid:
        return circular_grid(self.algebra.signature, grid, self.padding.reach, self.padding.rule[0])

    def _kept(self, kind: str, x: Tensor) -> Tensor:
        """The kernel, or its radial values for "spectral": in evaluation the ones made before, if still true."""

        def make() -> Tensor:
            with torch.autocast(x.device.type, enabled=False):  # kernels are small and kept in full precision
                return self.kernel() if kind == "direct" else self.kernel.radial()

        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            if self._remembered is not None:
                self._remembered = None  # a gradient may lead to a step of an optimizer
            return make()
        remembered = self._remembered
        if remembered is None:
            remembered = self._remembered = Remembered()
        return remembered.get(self.kernel, kind, x.device, make)

    def extra_repr(self) -> str:
        """Channels, size and steps."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride},"
            f" dilation={self.dilation}, strategy={self.strategy!r}"
        )


def _checked(
    kernel: nn.Module, algebra: CliffordAlgebra, in_channels: int, out_channels: int, kernel_size: int
) -> nn.Module:
    """The kernel, if it says nothing that contradicts the convolution's own arguments."""
    if not isinstance(kernel, nn.Module):
        raise ValueError(f"`kernel` (={kernel!r}) must be a kernel's name or module.")
    wanted = {
        "algebra": algebra,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_size": kernel_size,
    }
    for name, value in wanted.items():
        if getattr(kernel, name, value) != value:
            raise ValueError(
                f"`kernel` has {name} {getattr(kernel, name)}, but the convolution {value}: make them equal."
            )
    return kernel


class _Padded(nn.Module):
    """The padding of a convolution whose kernel spans ``reach`` + 1 cells."""

    def __init__(self, algebra: CliffordAlgebra, reach: int, stride: int, mode: Any):
        super().__init__()
        self.reach, self.stride, self.dim = reach, stride, algebra.dim
        self.xla = mode == "xla_same"
        self.ghosts = None if mode in ("valid", "xla_same") else Padding(algebra, reach // 2, mode)

    @property
    def rule(self) -> tuple[tuple[tuple[str, str], ...] | None, Tensor | None]:
        """Modes of each axis (None: no padding) and reflections, for odd kernels and stride 1."""
        if self.xla:
            return (("zeros", "zeros"),) * self.dim, None
        return (None, None) if self.ghosts is None else (self.ghosts.modes, self.ghosts.signs)

    def forward(self, x: Tensor) -> Tensor:
        """Pad a field of multivectors."""
        if self.xla:
            widths = []
            for length in x.shape[: -self.dim - 1 : -1]:  # the last axis first; lengths may be symbols
                total = torch.sym_max((-(-length // self.stride) - 1) * self.stride + self.reach + 1 - length, 0)
                widths += [total // 2, total - total // 2]
            x = F.pad(x, widths)
        return x if self.ghosts is None else self.ghosts(x)
