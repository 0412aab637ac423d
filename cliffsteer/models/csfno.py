"""CS-FNO: a Fourier neural operator whose spectral layers are O(p, q)-steerable."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import count_blocks
from cliffsteer.nn import MVGELU, MVLinear, SteerableSpectralConv
from cliffsteer.nn.norm import layer_norm


class FourierBlock(nn.Module):
    """x + GELU(norm(S x + W x)), S a steerable spectral convolution, W a pointwise map."""

    def __init__(
        self, algebra: CliffordAlgebra, channels: int, modes: int, extent: Sequence[float] | None, norm: str | None
    ):
        super().__init__()
        self.spectral = SteerableSpectralConv(algebra, channels, channels, modes, extent)
        self.pointwise = MVLinear(algebra, channels, channels)
        self.norm = layer_norm(norm, algebra, channels)
        self.activation = MVGELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to a field of multivectors."""
        return x + self.activation(self.norm(self.spectral(x) + self.pointwise(x)))


class CSFNO(nn.Module):
    """Clifford-steerable Fourier neural operator, for periodic domains: E(p, q)-equivariant, of any resolution.

    1×1, GELU, 1×1; blocks [x + GELU(norm(spectral + 1×1))]; 1×1, GELU, 1×1. The design is that of Li et al., "Fourier
    neural operator for parametric partial differential equations" (2021), with the complete steerable basis in place of
    free matrices at each frequency.

    Args:
        algebra: the algebra; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: multivectors between.
        blocks: number of blocks in each stage (the stages are alike).
        modes: highest whole frequency kept on every axis.
        extent: length of the domain along each axis, in any one unit; default all alike.
        norm: "layer", "reference" or "none".

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
        norm: str | None = "layer",
    ):
        super().__init__()
        count = count_blocks(hidden_channels, blocks)
        self.stem = nn.Sequential(
            MVLinear(algebra, in_channels, hidden_channels),
            MVGELU(),
            MVLinear(algebra, hidden_channels, hidden_channels),
        )
        self.blocks = nn.Sequential(
            *(FourierBlock(algebra, hidden_channels, modes, extent, norm) for _ in range(count))
        )
        self.head = nn.Sequential(
            MVLinear(algebra, hidden_channels, hidden_channels),
            MVGELU(),
            MVLinear(algebra, hidden_channels, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        return self.head(self.blocks(self.stem(x)))
