"""Convolution in the spectrum with a fixed kernel, whose spectrum is kept at one frequency per orbit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, transposed
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.linear import check_channels
from cliffsteer.nn.spectral_plan import Part, SpectralPlan, plan_on
from cliffsteer.nn.strategy import circular_grid

_PRECISIONS = (torch.float32, torch.float64)  # of spectra


class FrozenSpectralConv(nn.Module):
    """A `CliffordSteerableConv` in the spectrum, with the kernel's spectrum in a buffer; see `spectral_plan`.

    Unlike `spectral_convolution` it is made of PyTorch's own operators only, and one matrix per orbit acts on all
    blades at once, of even and of odd grade.

    Args:
        conv: the convolution to freeze; it must have a spectrum.
        grid: the grid of its inputs.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid').

    Raises:
        RuntimeError: without padding, a grid smaller than the kernel.
    """

    frozen: ClassVar[bool] = True

    def __init__(self, conv: CliffordSteerableConv, grid: Sequence[int]):
        super().__init__()
        self.algebra, self.in_channels, self.out_channels = conv.algebra, conv.in_channels, conv.out_channels
        self.stride, self.grid = conv.stride, tuple(grid)
        self.modes, reflections = conv.padding.rule
        if self.modes is None:
            check_reach(self.grid, conv.padding.reach + 1)
        self.circular = circular_grid(conv.algebra.signature, self.grid, conv.padding.reach, self.modes)
        radial = conv.kernel.radial().detach()
        radial = radial if radial.dtype in _PRECISIONS else radial.float()
        setting = conv.kernel.group, conv.kernel_size, conv.dilation, self.circular.lengths
        plan = plan_on(conv.algebra, *setting, radial.dtype, radial.device)
        self.classes, self.turned = plan.classes, plan.parts[-1].turned
        half = plan.rows.shape[2]
        sources = plan.rows.transpose(0, 1).flatten(1)  # blades of even grade, then of odd grade
        constants = {
            "sources": sources,
            "rows": plan.back // half % len(sources),
            "places": plan.back // plan.rows[0].numel() * half + plan.back % half,
            "signs": plan.signs,
            "character": _character(plan),
            "reflections": reflections,
        }
        for name, value in constants.items():
            self.register_buffer(name, None if value is None else value.clone(), persistent=False)
        self.register_buffer("spectrum", torch.stack([_spectrum(part, radial, half) for part in plan.parts]))
        self.register_buffer("bias", on_all_blades(conv.bias, conv.algebra, conv.algebra.dim))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field of multivectors on the grid that the convolution was frozen for."""
        check_channels(self, x, self.in_channels, self.algebra)
        if not x.is_floating_point():
            raise RuntimeError(f"`x` has dtype {x.dtype}, but multivectors here are made of real floating numbers.")
        if tuple(x.shape[3:]) != self.grid:
            raise RuntimeError(
                f"`x` has the grid {tuple(x.shape[3:])}, but the kernel's spectrum was frozen for {self.grid}: freeze"
                " with this `grid` (or an `example`, if the network changes its grid), or with `strategy` 'direct'."
            )
        if torch.is_autocast_enabled(x.device.type):  # spectra have a range that half precision has not
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x)
        if x.shape[0] == 0:  # Fourier transforms refuse it
            cells = [-(-count // self.stride) for count in self.circular.counts]
            return x.new_zeros(0, self.out_channels, self.algebra.n_blades, *cells)
        wide = self.circular.embed(x, self.modes, self.reflections)
        wide = wide if x.dtype in _PRECISIONS else wide.float()
        y = self._unfold(self._multiply(self._fold(wide), x.shape[0]), x.shape[0])
        y = self.circular.crop(y, self.stride).contiguous()
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def _fold(self, x: Tensor) -> Tensor:
        """The folded spectrum, (frequency · re/im · batch, blade · channel)."""
        batch, channels = x.shape[:2]
        half = torch.view_as_real(torch.fft.rfftn(x, dim=tuple(range(3, x.ndim)))).reshape(batch, channels, -1)
        by_number = transposed(half.mul_(self.signs)).view(-1, channels)
        first = torch.arange(batch, device=x.device) * len(self.signs)
        index = self.sources.unsqueeze(1) + first.unsqueeze(1)
        return by_number.index_select(0, index.flatten()).view(-1, self.spectrum.shape[2])

    def _multiply(self, z: Tensor, batch: int) -> Tensor:
        """The folded spectrum times the kernel's, all orbits of one size at a time."""
        parts, start = [], 0
        for first, number, size in self.classes:
            stop = start + number * size
            rows = z[start * 2 * batch : stop * 2 * batch].view(number, size * 2 * batch, -1)
            kernel = self.spectrum[:, first : first + number].to(z.dtype)
            y = torch.bmm(rows, kernel[0])
            if self.character is not None:
                y = torch.baddbmm(y, self._twisted(rows, self.character[start:stop], batch), kernel[1])
            parts.append(y.flatten(0, 1))
            start = stop
        return torch.cat(parts)

    def _twisted(self, rows: Tensor, character: Tensor, batch: int) -> Tensor:
        """What the second part of the kernel acts on: the rows times its character, and times i if it is turned."""
        split = rows.view(-1, 2, batch, rows.shape[2])
        split = split.flip(1) if self.turned else split
        return (split * character.view(-1, 2, 1, 1)).view(rows.shape)

    def _unfold(self, folded: Tensor, batch: int) -> Tensor:
        """The inverse of `_fold`."""
        each = torch.arange(batch, device=folded.device).unsqueeze(1)
        index = (self.rows * batch + each) * self.algebra.n_blades + self.places
        by_number = folded.view(-1, self.out_channels).index_select(0, index.flatten())
        half = transposed(by_number.view(batch, -1, self.out_channels)).mul_(self.signs)
        lengths = self.circular.lengths
        shape = (batch, self.out_channels, self.algebra.n_blades, *lengths[:-1], lengths[-1] // 2 + 1, 2)
        axes = tuple(range(3, 3 + len(lengths)))
        return torch.fft.irfftn(torch.view_as_complex(half.view(shape)), s=lengths, dim=axes)

    def extra_repr(self) -> str:
        """Spectrum and grid."""
        return f"spectrum={tuple(self.spectrum.shape)}, grid={self.grid}, stride={self.stride}"


def on_all_blades(bias: Tensor | None, algebra: CliffordAlgebra, dim: int) -> Tensor | None:
    """A scalar bias (channel,) with zeros on the other blades, (channel, blade, *1)."""
    if bias is None:
        return None
    full = bias.new_zeros(len(bias), algebra.n_blades, *[1] * dim)
    full[:, 0] = bias.detach().view(-1, *[1] * dim)
    return full


def _spectrum(part: Part, radial: Tensor, half: int) -> Tensor:
    """The spectrum of one part of the kernel, (frequency orbit, blade in · channel in, blade out · channel out)."""
    n_out, n_in = radial.shape[2:]
    n_orbits = part.products[0].tables.shape[0]
    spectrum = radial.new_zeros(n_orbits, 2, half, n_in, 2, half, n_out)
    for product in part.products:
        into, out = product.parities
        for term in product.terms:
            values = torch.einsum("fr,roi->fio", product.tables[:, term.table], radial[term.map])
            spectrum[:, into, term.into, :, out, term.out].add_(values, alpha=term.sign)
    return spectrum.view(n_orbits, 2 * half * n_in, 2 * half * n_out)


def _character(plan: SpectralPlan) -> Tensor | None:
    """What the second part's rows are multiplied by, (frequency, re/im), None where there is no second part."""
    part = plan.parts[-1]
    if part.character is None:
        return None
    turn = part.character.new_tensor([-1.0, 1.0] if part.turned else [1.0, 1.0])
    return part.character.unsqueeze(1) * turn
