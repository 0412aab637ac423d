"""CS-FNO: a Fourier neural operator whose spectral layers are O(p, q)-steerable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import count_blocks
from cliffsteer.nn import MVGELU, CliffordSteerableConv, MVLinear, SteerableSpectralConv
from cliffsteer.nn.norm import layer_norm
from cliffsteer.nn.product import create_nonlinearity


class FourierBlock(nn.Module):
    """x + f(norm(S x + W x)), S a steerable spectral convolution, W a local steerable map, f the nonlinearity."""

    def __init__(
        self,
        algebra: CliffordAlgebra,
        channels: int,
        spectral: nn.Module,
        local: nn.Module,
        norm: str | None,
        nonlinearity: str,
    ):
        super().__init__()
        self.spectral, self.local = spectral, local
        self.norm = layer_norm(norm, algebra, channels)
        self.activation = create_nonlinearity(nonlinearity, algebra, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to a field of multivectors."""
        return x + self.activation(self.norm(self.spectral(x) + self.local(x)))


class CSFNO(nn.Module):
    """Clifford-steerable Fourier neural operator, for periodic domains: E(p, q)-equivariant, of any resolution.

    1×1, GELU, 1×1; blocks [x + f(norm(spectral + local))]; 1×1, GELU, 1×1. The design is that of Li et al., "Fourier
    neural operator for parametric partial differential equations" (2021), with the complete steerable basis in place of
    free matrices at each frequency. What varies within few cells is beyond the kept frequencies; a local kernel of more
    than one point sees it, and ties the network to the resolution it was trained at (compare Liu-Schiaffini et al.,
    "Neural operators with localized integral and differential kernels", 2024).

    Args:
        algebra: the algebra; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: multivectors between.
        blocks: number of blocks in each stage (the stages are alike).
        modes: highest whole frequency kept on every axis.
        extent: length of the domain along each axis, in any one unit; default all alike.
        kernel_size: points along each axis of the local maps, odd; 1 for pointwise maps (MVLinear), without a kernel.
        kernel: name of the local maps' kernel.
        kernel_options: its options.
        norm: "layer", "reference" or "none".
        nonlinearity: of the blocks, "gelu" or "product", as for `CSResNet`.
        strategy: how the local convolutions are carried out, as for `CliffordSteerableConv`.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ValueError: an option out of its range.
        RuntimeError: a grid with fewer than 2 · modes + 1 cells on an axis.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 16,
        blocks: Sequence[int] = (4,),
        modes: int = 8,
        extent: Sequence[float] | None = None,
        kernel_size: int = 1,
        kernel: str = "complete",
        kernel_options: Mapping[str, Any] | None = None,
        norm: str | None = "layer",
        nonlinearity: str = "gelu",
        strategy: str = "auto",
    ):
        super().__init__()
        count, width = count_blocks(hidden_channels, blocks), hidden_channels
        conv = {"kernel": kernel, "kernel_options": kernel_options, "padding": "periodic", "strategy": strategy}

        def block() -> FourierBlock:
            spectral = SteerableSpectralConv(algebra, width, width, modes, extent)
            if kernel_size == 1:
                local: nn.Module = MVLinear(algebra, width, width)
            else:
                local = CliffordSteerableConv(algebra, width, width, kernel_size, **conv)
            return FourierBlock(algebra, width, spectral, local, norm, nonlinearity)

        self.stem = nn.Sequential(MVLinear(algebra, in_channels, width), MVGELU(), MVLinear(algebra, width, width))
        self.blocks = nn.Sequential(*(block() for _ in range(count)))
        self.head = nn.Sequential(MVLinear(algebra, width, width), MVGELU(), MVLinear(algebra, width, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x)))
