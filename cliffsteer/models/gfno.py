"""G-FNO: a Fourier neural operator on functions on the lattice's point group."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import shrunk, widened
from cliffsteer.models.checks import check_domain_padding, count_blocks
from cliffsteer.nn.group_conv import GroupConv, LiftingConv, ProjectionConv, regular_norm
from cliffsteer.nn.group_spectral import GroupSpectralConv


class GroupFourierBlock(nn.Module):
    """GELU(norm(S x + W x)), S a spectral group convolution, W a local one."""

    def __init__(self, algebra: CliffordAlgebra, channels: int, modes: int, group: str, norm: str | None):
        super().__init__()
        self.spectral = GroupSpectralConv(algebra, channels, channels, modes, group)
        self.local = GroupConv(algebra, channels, channels, 1, group)
        self.norm, self.activation = regular_norm(norm, channels), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to G-fields."""
        return self.activation(self.norm(self.spectral(x) + self.local(x)))


class GFNO(nn.Module):
    """G-FNO (Helwig et al., ICML 2023): a Fourier neural operator that is equivariant under the lattice's point group.

    Lifting of multivectors to G-fields; blocks [GELU(spectral + 1×1 group convolution)]; 1×1, GELU, projection. All is
    a group convolution, so that the network commutes exactly with the symmetries of the lattice of a periodic domain,
    and it runs at any resolution. Helwig et al., "Group equivariant Fourier neural operators for partial differential
    equations" (2023), have it on the plane; without their multilayer perceptrons in the blocks.

    Args:
        algebra: the algebra, of any signature; the network works on grids of its dimension.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: G-fields between; each is as many real channels as the group has elements.
        blocks: number of blocks in each stage (the stages are alike).
        modes: highest whole frequency kept on every axis.
        group: "O" (all of the lattice's point group), "SO" (rotations only) or "orthochronous".
        norm: "layer" (all channels and elements of a sample together) or "none".
        domain_padding: cells of zeros between blocks and both sides of a domain that is not periodic, as a share of
            each axis; else what leaves on one side would come in on the other.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ValueError: an option out of its range.
        RuntimeError: a grid with fewer than 2 · modes + 1 cells on an axis, those of the padding included.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 8,
        blocks: Sequence[int] = (4,),
        modes: int = 12,
        group: str = "O",
        norm: str | None = "none",
        domain_padding: float = 0,
    ):
        super().__init__()
        count, width = count_blocks(hidden_channels, blocks), hidden_channels
        check_domain_padding(domain_padding)
        self.n_blades, self.domain_padding = algebra.n_blades, domain_padding
        self.stem = LiftingConv(algebra, in_channels, width, 1, group)
        self.blocks = nn.Sequential(*(GroupFourierBlock(algebra, width, modes, group, norm) for _ in range(count)))
        local = GroupConv(algebra, width, width, 1, group)
        self.head = nn.Sequential(local, nn.GELU(), ProjectionConv(algebra, width, out_channels, 1, group))

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        grid = x.shape[3:]
        y = self.blocks(widened(self.stem(x.flatten(1, 2)), grid, self.domain_padding))
        return self.head(shrunk(y, grid)).unflatten(1, (-1, self.n_blades))
