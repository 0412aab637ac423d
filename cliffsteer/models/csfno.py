"""CS-FNO: a Fourier neural operator whose spectral layers are O(p, q)-steerable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import shrunk, widened
from cliffsteer.models.checks import check_domain_padding, count_blocks
from cliffsteer.nn import MVGELU, CliffordSteerableConv, MVLinear, SteerableSpectralConv
from cliffsteer.nn.kernels import create_kernel
from cliffsteer.nn.norm import layer_norm
from cliffsteer.nn.product import create_nonlinearity
from cliffsteer.nn.strategy import STRATEGIES


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
        self.activation = (
            nn.Identity() if nonlinearity == "none" else create_nonlinearity(nonlinearity, algebra, channels)
        )

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
        extent: length of the domain along each axis, in any one unit; default all alike. In a config "grid" stands for
            that of the data's grid.
        kernel_size: points along each axis of the local maps, odd; 1 for pointwise maps (MVLinear), without a kernel.
        kernel: name of the local maps' kernel; like its options and the strategy not to be changed without one.
        kernel_options: its options.
        norm: "layer", "group", "reference" or "none", see `cliffsteer.nn.norm.layer_norm`.
        nonlinearity: of the blocks, "gelu" or "product", as for `CSResNet`; or "none": with ``norm="none"`` the whole
            network is then linear (but for biases), as the equations of vacuum and heat are.
        strategy: how the local convolutions are carried out, as for `CliffordSteerableConv`.
        domain_padding: cells of zeros between blocks and both sides of a domain that is not periodic, as a share of
            each axis; else what leaves on one side would come in on the other. Norms see them too.

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
        hidden_channels: int = 16,
        blocks: Sequence[int] = (4,),
        modes: int = 8,
        extent: Sequence[float] | None = None,
        kernel_size: int = 1,
        kernel: str = "complete",
        kernel_options: Mapping[str, Any] | None = None,
        norm: str | None = "group",
        nonlinearity: str = "gelu",
        strategy: str = "auto",
        domain_padding: float = 0,
    ):
        super().__init__()
        _check_local(algebra, kernel_size, kernel, kernel_options, strategy)
        check_domain_padding(domain_padding)
        if isinstance(extent, str):
            raise ValueError(f"`extent` (={extent!r}) must hold lengths: `fit_to_grid` puts those of a grid there.")
        self.domain_padding = domain_padding
        count, width = count_blocks(hidden_channels, blocks), hidden_channels
        conv = {"kernel": kernel, "kernel_options": kernel_options, "padding": "periodic", "strategy": strategy}

        def block() -> FourierBlock:
            spectral = SteerableSpectralConv(algebra, width, width, modes, extent)
            if kernel_size == 1:
                local: nn.Module = MVLinear(algebra, width, width)
            else:
                local = CliffordSteerableConv(algebra, width, width, kernel_size, **conv)
            return FourierBlock(algebra, width, spectral, local, norm, nonlinearity)

        activation = nn.Identity if nonlinearity == "none" else MVGELU
        self.stem = nn.Sequential(MVLinear(algebra, in_channels, width), activation(), MVLinear(algebra, width, width))
        self.blocks = nn.Sequential(*(block() for _ in range(count)))
        self.head = nn.Sequential(MVLinear(algebra, width, width), activation(), MVLinear(algebra, width, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        grid = x.shape[3:]
        return self.head(shrunk(self.blocks(widened(self.stem(x), grid, self.domain_padding)), grid))


def _check_local(
    algebra: CliffordAlgebra,
    kernel_size: int,
    kernel: str,
    kernel_options: Mapping[str, Any] | None,
    strategy: str,
) -> None:
    """Refuse options of the local maps that are wrong, or that pointwise maps would not read."""
    given = {key: value for key, value in (kernel_options or {}).items() if value is not None}
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` (={strategy!r}) must be one of {', '.join(map(repr, STRATEGIES))}.")
    if kernel_size != 1:
        return  # the convolution checks the rest
    with torch.random.fork_rng(devices=[]):  # a check draws nothing from the seed of the weights
        create_kernel(kernel, algebra, 1, 1, 3, **given)
    unread = {"kernel_options": given} if given else {}
    unread |= {"kernel": kernel} if kernel != "complete" else {}
    unread |= {"strategy": strategy} if strategy != "auto" else {}
    for name, value in unread.items():
        raise ValueError(
            f"`{name}` (={value!r}) does nothing with `kernel_size` (=1), which makes the local maps pointwise: take a"
            " kernel of 3 points or more, or leave it out."
        )
