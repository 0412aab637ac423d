"""FNO: the Fourier neural operator of the neuraloperator library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.checks import check_domain_padding, count_blocks


class ComplexWeight(nn.Module):
    """A complex tensor kept as real and imaginary parts: changes of precision, and files, know no complex numbers."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.parts = nn.Parameter(torch.view_as_real(value).clone())

    def __getitem__(self, index: Any) -> Tensor:
        return torch.view_as_complex(self.parts)[index]


class FNO(nn.Module):
    """Fourier neural operator (Li et al., ICLR 2021) of the `neuraloperator` library, on the real components.

    Lifting; blocks [spectral convolution + 1×1, GELU, channel MLP]; projection. No symmetry but, without the positional
    embedding, translations of a periodic domain. Needs ``pip install "cliffsteer[neuralop]"``.

    Args:
        algebra: the algebra; it only tells the number of blades and of grid axes.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: real channels between.
        blocks: number of blocks in each stage (the stages are alike).
        modes: frequencies -modes to modes - 1 are kept on every axis (0 to modes on the last).
        norm: "layer" (group norm with one group) or "none", the library's default.
        position: give the network the coordinates of each cell as further channels, the library's default.
        domain_padding: cells added for domains that are not periodic, as a share of each axis.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ModuleNotFoundError: neuraloperator is not installed.
        ValueError: an option out of its range.
        RuntimeError: a grid with fewer than 2 · modes cells on an axis.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 32,
        blocks: Sequence[int] = (4,),
        modes: int = 12,
        norm: str | None = "none",
        position: bool = True,
        domain_padding: float = 0,
    ):
        super().__init__()
        count = count_blocks(hidden_channels, blocks)
        if modes < 1:
            raise ValueError(f"`modes` (={modes}) must be at least 1.")
        if norm not in ("layer", "none", None):
            raise ValueError(f"`norm` (={norm!r}) must be 'layer' or 'none'.")
        check_domain_padding(domain_padding)
        try:
            import neuralop.models as library
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "The model 'fno' needs the neuraloperator library: pip install 'cliffsteer[neuralop]'."
            ) from error
        self.n_blades, self.modes = algebra.n_blades, modes
        self.operator = library.FNO(
            n_modes=(2 * modes,) * algebra.dim,
            in_channels=in_channels * algebra.n_blades,
            out_channels=out_channels * algebra.n_blades,
            hidden_channels=hidden_channels,
            n_layers=count,
            channel_mlp_expansion=max(0.5, 1 / hidden_channels),  # the library's own, and one channel at least
            norm="group_norm" if norm == "layer" else None,
            positional_embedding="grid" if position else None,
            domain_padding=domain_padding or None,
        )
        for conv in self.operator.fno_blocks.convs:
            conv.weight = ComplexWeight(conv.weight.to_tensor().detach())
        self.register_state_dict_post_hook(_drop_metadata)

    def forward(self, x: Tensor) -> Tensor:
        """Map a field of multivectors to one."""
        if min(x.shape[3:]) < 2 * self.modes:
            raise RuntimeError(
                f"`x` has the grid {tuple(x.shape[3:])}, but {self.modes} modes need at least {2 * self.modes} cells on"
                " each axis: take fewer `modes` or a finer grid."
            )
        with torch.autocast(x.device.type, enabled=False):  # spectra have a range that half precision has not
            y = self.operator(x.flatten(1, 2).to(next(self.parameters()).dtype))
        return y.to(x.dtype).unflatten(1, (-1, self.n_blades))


def _drop_metadata(module: nn.Module, state: dict[str, Any], prefix: str, local: dict[str, Any]) -> None:
    """Drop the library's constructor arguments, which are no tensors, from a state dict."""
    state.pop("_metadata", None)
