"""Group convolutions given in Fourier space: the spectral layer of G-FNO."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.lattice_group import lattice_group, turned


class GroupSpectralConv(nn.Module):
    """Periodic group convolution whose spectrum is learned at the lowest frequencies.

        ŷ_o(k, g) = Σ_i Σ_h Ŵ_oi(g⁻¹h, g⁻¹k) f̂_i(k, h)   for |k_a| <= modes on every axis a,   0 beyond

    k counts whole waves, so the layer runs at any resolution of a domain. Source: Helwig et al., "Group equivariant
    Fourier neural operators for partial differential equations" (ICML 2023), section 4.

    Ŵ is the unitary discrete Fourier transform of real weights on (2 modes + 1)ⁿ points: as many numbers as a spectrum
    with Ŵ(-k) = conj Ŵ(k) has, so that y is real. The transform comes before the turns, which then only copy half the
    spectrum; the (elements · channels)² · (2 modes + 1)ⁿ / 2 complex products of each sample are most of the work.
    Initialised so that white input of unit variance in the kept frequencies gives output of unit variance there.

    Args:
        algebra: the algebra, of any signature; one grid axis per basis vector.
        in_channels: G-fields in, see `group_conv`.
        out_channels: G-fields out.
        modes: highest whole frequency kept on every axis; grids must have at least 2 · modes + 1 cells on each.
        group: "O", "SO" or "orthochronous", see `lattice_group`.

    Shape:
        (batch, in_channels · element, *grid) -> (batch, out_channels · element, *grid), elements fastest.

    Raises:
        ValueError: fewer than one mode, or an unknown group.
        RuntimeError: a grid with too few cells.
    """

    def __init__(self, algebra: CliffordAlgebra, in_channels: int, out_channels: int, modes: int, group: str = "O"):
        super().__init__()
        check_algebra(algebra)
        points = lattice_group(algebra, group)
        self.modes, self.group = whole("modes", modes), group
        channels = whole("out_channels", out_channels), whole("in_channels", in_channels)
        self.weight = nn.Parameter(torch.empty(*channels, len(points), *[2 * modes + 1] * algebra.dim))
        half = points.cells(2 * modes + 1).unflatten(1, (-1, 2 * modes + 1))[..., modes:].flatten(1)
        self.register_buffer("cells", half, persistent=False)
        self.register_buffer("quotients", points.quotients, persistent=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels * len(points)))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve G-fields."""
        if not torch.compiler.is_compiling():
            self._check(x.shape[2:])
        with torch.autocast(x.device.type, enabled=False):  # spectra have a range that half precision has not
            return self._convolve(x.to(self.weight.dtype)).to(x.dtype)

    def spectrum(self) -> Tensor:
        """K̂ at half of the frequencies, (frequency, out_channels · element, in_channels · element), complex."""
        axes = tuple(range(3, self.weight.ndim))
        centred = torch.fft.fftshift(torch.fft.fftn(self.weight, dim=axes, norm="ortho"), axes)
        turns = turned(centred.flatten(3), self.quotients, self.cells)  # (out, in, g, h, frequency)
        return turns.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:  # Fourier transforms refuse it
            return x.new_zeros(0, len(self.weight) * len(self.cells), *x.shape[2:])
        axes = tuple(range(2, x.ndim))
        low = self._lowest(torch.fft.rfftn(x, dim=axes))
        y = torch.bmm(self.spectrum(), low.flatten(2).permute(2, 1, 0)).permute(2, 1, 0)
        return torch.fft.irfftn(self._embedded(y.unflatten(2, low.shape[2:]), x.shape[2:]), s=x.shape[2:], dim=axes)

    def _lowest(self, spectrum: Tensor) -> Tensor:
        """The kept frequencies of a half spectrum, from -modes to modes, on the last axis from 0."""
        for axis in range(2, spectrum.ndim - 1):
            spectrum = spectrum.roll(self.modes, axis).narrow(axis, 0, 2 * self.modes + 1)
        return spectrum.narrow(-1, 0, self.modes + 1)

    def _embedded(self, y: Tensor, grid: Sequence[int]) -> Tensor:
        """The half spectrum of the grid that holds the kept frequencies and zeros."""
        beyond = [n - 2 * self.modes - 1 for n in grid[:-1]] + [grid[-1] // 2 - self.modes]
        wide = F.pad(y, [side for n in reversed(beyond) for side in (0, n)])
        for axis in range(2, y.ndim - 1):
            wide = wide.roll(-self.modes, axis)
        return wide

    def _check(self, grid: Sequence[int]) -> None:
        if min(grid) <= 2 * self.modes:
            raise RuntimeError(
                f"`x` has the grid {tuple(grid)}, but {self.modes} modes need at least {2 * self.modes + 1} cells on"
                " each axis: take fewer `modes` or a finer grid."
            )

    def extra_repr(self) -> str:
        """Channels, modes and group."""
        out, into = self.weight.shape[:2]
        return f"{into}, {out}, modes={self.modes}, group={self.group!r}, elements={len(self.cells)}"
