"""Steerable kernels given in Fourier space: the spectral layer of a neural operator, with O(p, q) built in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.checks import check_algebra, check_dtype, whole
from cliffsteer.nn.kernels.basis import equivariant_maps, map_degrees, map_targets
from cliffsteer.nn.linear import check_channels


class SteerableSpectralConv(nn.Module):
    """Periodic convolution with a steerable kernel whose spectrum is learned at the lowest frequencies.

        ĝ(k) = Σ_b r_b(q(k)) i^{deg b} M_b(k) f̂(k)   for |k_a| <= modes on every axis a,   0 beyond

    A kernel is steerable in space if and only if its spectrum is in k, and then the spectrum is made of the same 4n
    maps M_b (see `kernels.basis`); i at each odd map makes the kernel real. So every O(p, q)-equivariant linear
    operator with constant coefficients is one such layer: Leray's projection, the Helmholtz splitting, the propagators
    of the heat equation, the wave equation and Maxwell's equations. One real number per map, value of q and pair of
    channels; the number of cells does not enter, so the layer runs at any resolution of the same domain.

    Initialised so that white input of unit variance in the kept frequencies gives output of unit variance there.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        modes: highest whole frequency kept on every axis; grids must have at least 2 · modes + 1 cells on each.
        extent: length of the domain along each axis, in any one unit; default all 1. k_a is a_whole / extent[a].

    Attributes:
        q: q(k) of each orbit, in units of (modes / longest extent)².

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).

    Raises:
        ValueError: fewer than one mode, or an extent that does not fit the algebra.
        RuntimeError: a grid with too few cells.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        modes: int,
        extent: Sequence[float] | None = None,
    ):
        super().__init__()
        check_algebra(algebra)
        modes = whole("modes", modes)
        in_channels, out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        lengths = (1.0,) * algebra.dim if extent is None else tuple(map(float, extent))
        if len(lengths) != algebra.dim or not all(0 < length < math.inf for length in lengths):
            raise ValueError(f"`extent` (={extent!r}) must hold a positive length for each of {algebra.dim} axes.")
        self.algebra, self.modes = algebra, modes
        self.in_channels, self.out_channels = in_channels, out_channels
        k = self._frequencies(lengths)
        q = (k.square() * torch.tensor(algebra.signature)).sum(1)
        keys = torch.stack([k.any(1).double(), (q * 1e9).round()], 1)  # values of q equal to rounding are equal
        values, orbit = keys.unique(dim=0, return_inverse=True)
        exact = q.new_zeros(len(values)).scatter_(0, orbit, q)
        self.register_buffer("orbit", orbit, persistent=False)
        self.register_buffer("q", exact, persistent=False)
        maps = equivariant_maps(algebra, k.T)
        sides = 1 + (k[:, -1] > 0).double()  # a frequency of the half spectrum stands for its negative too
        odd = torch.tensor([degree % 2 for degree in map_degrees(algebra)]).view(-1, 1, 1, 1)
        scaled = maps * self._scale(maps, sides).view(-1, 1, 1, 1)
        both = torch.cat([scaled * (1 - odd), scaled * odd], 2).permute(3, 0, 1, 2)  # what they make of f̂, and of i f̂
        self.register_buffer("maps", both.contiguous(), persistent=False)
        self._cast = self.maps
        self.weight = nn.Parameter(torch.empty(len(maps), len(values), out_channels, in_channels))
        targets = torch.tensor(map_targets(algebra))
        per_target = torch.bincount(targets)[targets].double()
        with torch.no_grad():
            std = (in_channels * per_target).rsqrt().view(-1, 1, 1, 1)
            self.weight.normal_().mul_(std)

    def _frequencies(self, extent: Sequence[float]) -> Tensor:
        """Kept wave vectors in units of modes / longest extent, float64, (frequency, dim), half of the last axis."""
        whole = [*range(self.modes + 1), *range(-self.modes, 0)]
        axes = [whole] * (self.algebra.dim - 1) + [range(self.modes + 1)]
        k = torch.tensor(list(itertools.product(*axes)), dtype=torch.float64)
        return k * (max(extent) / torch.tensor(extent, dtype=torch.float64)) / self.modes

    def _scale(self, maps: Tensor, sides: Tensor) -> Tensor:
        """Factors that give each map the same share of the output's variance, on average over the frequencies."""
        targets = torch.tensor(map_targets(self.algebra))
        blades = torch.tensor([self.algebra.grade_size(int(grade)) for grade in targets])
        return (maps.square().sum((1, 2)) @ sides / sides.sum() / blades).rsqrt()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field of multivectors."""
        if not torch.compiler.is_compiling():
            self._check(x)
        with torch.autocast(x.device.type, enabled=False):  # spectra have a range that half precision has not
            return self._convolve(x.to(self.weight.dtype)).to(x.dtype)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:  # Fourier transforms refuse it
            return x.new_zeros(0, self.out_channels, *x.shape[2:])
        axes = tuple(range(3, x.ndim))
        spectrum = self._lowest(torch.fft.rfftn(x, dim=axes))
        y = self._multiply(spectrum.flatten(3)).unflatten(3, spectrum.shape[3:])
        return torch.fft.irfftn(self._embedded(y, x.shape[3:]), s=x.shape[3:], dim=axes)

    def _check(self, x: Tensor) -> None:
        check_channels(self, x, self.in_channels, self.algebra)
        if x.ndim != 3 + self.algebra.dim or min(x.shape[3:]) <= 2 * self.modes:
            raise RuntimeError(
                f"`x` has the grid {tuple(x.shape[3:])}, but {self.modes} modes need {self.algebra.dim} axes of at"
                f" least {2 * self.modes + 1} cells: take fewer `modes` or a finer grid."
            )
        check_dtype(self, x)

    def _multiply(self, z: Tensor) -> Tensor:
        """The spectrum (batch, channel, blade, frequency), complex, times that of the kernel, by real products."""
        batch, channels, blades, count = z.shape
        pairs = torch.view_as_real(z).permute(3, 2, 1, 0, 4)  # (frequency, blade, channel, batch, 2)
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1)
        maps = self._maps_like(pairs)
        mapped = torch.bmm(maps.flatten(1, 2), torch.cat([pairs, turned], 1).flatten(2))
        mapped = mapped.view(count, maps.shape[1], blades, channels, 2 * batch).transpose(2, 3)
        weight = self.weight.index_select(1, self.orbit).permute(1, 2, 0, 3).flatten(2)  # (frequency, out, map · in)
        y = torch.bmm(weight, mapped.flatten(1, 2).flatten(2)).view(count, self.out_channels, blades, batch, 2)
        return torch.view_as_complex(y).permute(3, 1, 2, 0)

    def _maps_like(self, x: Tensor) -> Tensor:
        """The maps in the precision of ``x``, shape (frequency, map, blade, 2 · blade); the last ones are kept."""
        if torch.compiler.is_compiling():
            return self.maps.to(x.dtype)
        if self._cast.dtype != x.dtype or self._cast.device != x.device:
            with torch.inference_mode(False):  # it may be trained with later
                self._cast = self.maps.to(x)
        return self._cast

    def _lowest(self, spectrum: Tensor) -> Tensor:
        """The kept frequencies of a half spectrum."""
        for axis in range(3, spectrum.ndim - 1):
            length = spectrum.shape[axis]
            parts = spectrum.narrow(axis, 0, self.modes + 1), spectrum.narrow(axis, length - self.modes, self.modes)
            spectrum = torch.cat(parts, axis)
        return spectrum.narrow(-1, 0, self.modes + 1)

    def _embedded(self, y: Tensor, grid: Sequence[int]) -> Tensor:
        """A half spectrum of the grid that holds the kept frequencies and zeros."""
        for axis, length in zip(range(3, y.ndim - 1), grid, strict=False):
            low, high = y.narrow(axis, 0, self.modes + 1), y.narrow(axis, self.modes + 1, self.modes)
            between = [length - 2 * self.modes - 1 if i == axis else n for i, n in enumerate(y.shape)]
            y = torch.cat([low, y.new_zeros(between), high], axis)
        return torch.cat([y, y.new_zeros(*y.shape[:-1], grid[-1] // 2 - self.modes)], -1)

    def extra_repr(self) -> str:
        """Channels and modes."""
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}, {self.algebra}"
