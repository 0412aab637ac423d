"""Convolution with a steerable kernel in the spectrum, at one frequency per orbit, in real matrix products.

See `spectral_plan` for the mathematics. The cost does not depend on the kernel's size, and no kernel is ever formed:

    fold:   transform, channels last, gather the frequencies of an orbit, blades turned to the representative's frame
    spread: the kernel's spectrum at a few orbits, (in blade, channel) × (out blade, channel), from its radial values
    multiply these, unfold, transform back

Both are operators of their own to torch.compile and torch.export, and to torch.func in `_Convolution`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import transposed
from cliffsteer.nn.spectral_plan import Part, Product, SpectralPlan, plan_on

_CHUNK = {"cpu": 1 << 24}  # bytes of the kernel's spectrum held at a time: what stays in a shared cache
_CHUNK_ELSEWHERE = 1 << 28


def spectral_convolution(
    x: Tensor, radial: Tensor, algebra: CliffordAlgebra, group: str, kernel_size: int, dilation: int = 1
) -> Tensor:
    """Circular cross-correlation Σ_v K(v) f(x + v) with K(v) = Σ_b r_b(orbit of v) M_b(v).

    Differentiable once in ``x`` and ``radial``, backwards or forwards, or forwards and then backwards.

    Args:
        x: shape (batch, in_channels, blade, *grid), float32 or float64.
        radial: radial values of a steerable kernel, (maps, orbits, out_channels, in_channels), cast to ``x``'s dtype.
        algebra: the algebra.
        group: of the kernel's basis.
        kernel_size: of the kernel's basis; it may be larger than the grid and then wraps around.
        dilation: step between kernel points.

    Returns:
        Shape (batch, out_channels, blade, *grid).
    """
    setting = list(algebra.signature), group, kernel_size, dilation
    return _differentiable(x, radial.to(x.dtype), *setting)[0]


def _full_precision(operator):
    """The operator, whatever autocast says: spectra have a range that half precision has not."""

    @functools.wraps(operator)
    def run(x, *args):
        with torch.autocast(x.device.type, enabled=False):
            return operator(x, *args)

    return run


_PARITIES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of blades in and out
_SETTING = "int[] signature, str group, int kernel_size, int dilation"


@torch.library.custom_op(
    "cliffsteer::spectral_convolution",
    mutates_args=(),
    schema=f"(Tensor x, Tensor radial, {_SETTING}) -> (Tensor, Tensor)",
)
@_full_precision
def _convolve(x, radial, signature, group, kernel_size, dilation):
    """The convolution and, for its backward, the folded spectrum of ``x``."""
    if not len(x):  # Fourier transforms refuse it
        return _empty_like_result(x, radial)
    plan = _plan_for(x, signature, group, kernel_size, dilation)
    folded = _fold(x, plan)
    return _unfold(_multiply(folded, plan, radial, x.shape[0]), plan, x.shape, radial.shape[2]), folded


@_convolve.register_fake
def _(x, radial, signature, group, kernel_size, dilation):
    return _empty_like_result(x, radial)


def _empty_like_result(x: Tensor, radial: Tensor) -> tuple[Tensor, Tensor]:
    half = 2 * math.prod(x.shape[3:-1]) * (x.shape[-1] // 2 + 1)
    shape = (x.shape[0], radial.shape[2], *x.shape[2:])
    return x.new_empty(shape), x.new_empty(2, half * x.shape[0], x.shape[2] // 2 * x.shape[1])


@torch.library.custom_op(
    "cliffsteer::spectral_convolution_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, Tensor folded, Tensor radial, {_SETTING}, bool for_x, bool for_radial)"
    " -> (Tensor, Tensor)",
)
@_full_precision
def _convolve_backward(gradient, folded, radial, signature, group, kernel_size, dilation, for_x, for_radial):
    """Gradients for ``x`` and ``radial``; an empty tensor for one that is not asked for."""
    if not len(gradient):
        dx = gradient.new_empty(0, radial.shape[3] if for_x else 0, *gradient.shape[2:])
        return dx, radial.new_zeros(radial.shape if for_radial else 0)
    plan = _plan_for(gradient, signature, group, kernel_size, dilation)
    results = _multiply_back(_fold(gradient, plan), folded, plan, radial, gradient.shape[0], for_x, for_radial)
    dradial = results.pop()  # popped, so that the spectra are freed as soon as they are read
    return _unfold(results.pop(), plan, gradient.shape, radial.shape[3]) if for_x else gradient.new_empty(0), dradial


@_convolve_backward.register_fake
def _(gradient, folded, radial, signature, group, kernel_size, dilation, for_x, for_radial):
    shape = (gradient.shape[0], radial.shape[3], *gradient.shape[2:])
    return gradient.new_empty(shape if for_x else 0), radial.new_empty(radial.shape if for_radial else 0)


def _save(ctx, inputs, output):
    _, radial, *ctx.setting = inputs
    ctx.save_for_backward(output[1], radial)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, gradient, _, run=_convolve_backward):
    if gradient is None:
        return (None,) * 6
    need = ctx.needs_input_grad
    dx, dradial = run(gradient.contiguous(), *ctx.saved_tensors, *ctx.setting, need[0], need[1])
    return dx if need[0] else None, dradial if need[1] else None, None, None, None, None


_convolve.register_autograd(_differentiate, setup_context=_save)


class _Convolution(torch.autograd.Function):
    """The operator for eager mode, where it has all the transforms of torch.func, each once."""

    forward = staticmethod(_convolve)
    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx, gradient, _):
        return _differentiate(ctx, gradient, None, _ConvolutionBackward.apply)

    @staticmethod
    def jvp(ctx, *_):
        raise RuntimeError(_ONCE)

    @staticmethod
    def vmap(info, in_dims, *args):
        return _each(_differentiable, info, in_dims, args)


class _ConvolutionBackward(torch.autograd.Function):
    """Its gradients, which have none themselves."""

    forward = staticmethod(_convolve_backward)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(_ONCE)

    jvp = backward

    @staticmethod
    def vmap(info, in_dims, *args):
        return _each(_ConvolutionBackward.apply, info, in_dims, args)


_ONCE = (
    "the spectral convolution can be differentiated once (in reverse, or forwards and then in reverse): for further"
    " derivatives take `strategy` 'direct', or `conv.strategy = 'direct'` on a module that is there."
)


def _differentiable(x, radial, *setting):
    """The convolution with its derivative along the tangents of forward mode; it is linear in either argument."""
    run = _convolve if torch.compiler.is_compiling() else _Convolution.apply
    (x, dx), (radial, dradial) = _unpacked(x), _unpacked(radial)
    y, folded = run(x, radial, *setting)
    changes = [] if dx is None else [run(dx, radial, *setting)[0]]
    if dradial is not None:
        changes.append(run(x, dradial, *setting)[0])
    return forward_ad.make_dual(y, sum(changes[1:], changes[0])) if changes else y, folded


def _unpacked(x):
    """A tensor and its tangent or None."""
    try:
        return forward_ad.unpack_dual(x)
    except RuntimeError:  # under vmap, whose rule comes back for each member
        return x, None


def _each(function, info, in_dims, args):
    """The members of an ensemble one after another."""
    members = []
    for member in range(info.batch_size):
        pairs = zip(args, in_dims, strict=True)
        members.append(function(*(a.select(dim, member) if isinstance(dim, int) else a for a, dim in pairs)))
    return tuple(torch.stack(outputs) for outputs in zip(*members, strict=True)), (0, 0)


def _plan_for(x: Tensor, signature: Sequence[int], group: str, kernel_size: int, dilation: int) -> SpectralPlan:
    algebra = CliffordAlgebra(tuple(signature))
    return plan_on(algebra, group, kernel_size, dilation, tuple(x.shape[3:]), x.dtype, x.device)


def _fold(x: Tensor, plan: SpectralPlan) -> Tensor:
    """The folded spectrum of (batch, channel, blade, *grid): (parity, frequency · re/im · batch, blade · channel)."""
    batch, channels, blades = x.shape[:3]
    half = torch.view_as_real(torch.fft.rfftn(x, dim=tuple(range(3, x.ndim)))).reshape(batch, channels, -1)
    by_number = transposed(half.mul_(plan.signs))
    del half
    rows = by_number.view(-1, channels).index_select(0, plan.indices(batch)[0])
    return rows.view(2, -1, blades // 2 * channels)


def _unfold(folded: Tensor, plan: SpectralPlan, shape: Sequence[int], channels: int) -> Tensor:
    """The inverse of `_fold`, for ``channels`` and the batch, blades and grid of ``shape``."""
    batch, blades, grid = shape[0], shape[2], tuple(shape[3:])
    by_number = folded.view(-1, channels).index_select(0, plan.indices(batch)[1])
    del folded
    half = transposed(by_number.view(batch, -1, channels)).mul_(plan.signs)
    del by_number
    spectrum = torch.view_as_complex(half.view(batch, channels, blades, *grid[:-1], grid[-1] // 2 + 1, 2))
    return torch.fft.irfftn(spectrum, s=grid, dim=tuple(range(3, 3 + len(grid))))


def _multiply(folded: Tensor, plan: SpectralPlan, radial: Tensor, batch: int) -> Tensor:
    """The folded spectrum times the kernel's."""
    spectrum = _Spectrum(plan, radial)
    out = folded.new_empty(*folded.shape[:2], spectrum.width_out)
    for block in _blocks(plan, spectrum, batch):
        z, y = block.of(folded), block.of(out)
        for number, part in enumerate(plan.parts):
            kernel, turned = spectrum.spread(number, block.orbits), [block.twist(half, part) for half in z]
            for into, out_parity in _PARITIES:
                y[out_parity].baddbmm_(turned[into], kernel[into][out_parity], beta=int(number + into > 0))
    return out


def _multiply_back(
    dy_all: Tensor, folded: Tensor, plan: SpectralPlan, radial: Tensor, batch: int, for_x: bool, for_radial: bool
) -> list[Tensor]:
    """Gradients of `_multiply` for the folded spectrum and the radial values; ``dy_all`` is overwritten."""
    spectrum = _Spectrum(plan, radial)
    dz_all = torch.empty_like(folded) if for_x else folded.new_empty(0)
    for block in _blocks(plan, spectrum, batch):
        z, dy = block.of(folded), block.of(dy_all)
        if for_x:
            dz = block.of(dz_all)
            for number, part in enumerate(plan.parts):
                kernel, turned = spectrum.spread(number, block.orbits), [block.twist(half, part, True) for half in dy]
                for out, into in _PARITIES:
                    dz[into].baddbmm_(turned[out], kernel[into][out].mT, beta=int(number + out > 0))
        if for_radial:
            for half in dy:
                half.mul_(block.weights(plan))
            for number, part in enumerate(plan.parts):
                spectrum.collect(number, block.orbits, [block.twist(half, part) for half in z], dy)
    return [dz_all, spectrum.gradient() if for_radial else radial.new_empty(0)]


class _Spectrum:
    """The kernel's spectrum on a few orbits of frequencies at a time, made from radial values, and the way back."""

    def __init__(self, plan: SpectralPlan, radial: Tensor):
        self.plan, self.half = plan, plan.rows.shape[2]
        self.radial = radial.transpose(2, 3).contiguous()  # (map, kernel orbit, in, out)
        self.into, self.out = self.radial.shape[2:]
        self.width_in, self.width_out = self.half * self.into, self.half * self.out
        cost = 4 * self.width_in * self.width_out * radial.element_size()
        self.step = max(_CHUNK.get(radial.device.type, _CHUNK_ELSEWHERE) // cost, 1)
        size = (2, 2, min(self.step, plan.n_orbits), self.width_in, self.width_out)
        every = all(len(part.products) == len(_PARITIES) for part in plan.parts)
        self.buffers = [radial.new_empty(size) if every else radial.new_zeros(size) for _ in plan.parts]
        self.factors = [[self._factor(product) for product in part.products] for part in plan.parts]
        self.collected: list[list[Tensor]] | None = None
        self.gradients: Tensor | None = None

    def _factor(self, product: Product) -> Tensor:
        """The radial values of one product, (table · kernel orbit, in blade · in · out blade · out)."""
        n_tables, orbits = product.tables.shape[1:]
        factor = self.radial.new_zeros(n_tables, orbits, self.half, self.into, self.half, self.out)
        for term in product.terms:
            factor[term.table, :, term.into, :, term.out].add_(self.radial[term.map], alpha=term.sign)
        return factor.view(n_tables * orbits, -1)

    def spread(self, part: int, orbits: slice) -> Tensor:
        """The spectrum, (parity in, parity out, frequency orbit, in blade · in channel, out blade · out channel)."""
        spectrum = self.buffers[part][:, :, : orbits.stop - orbits.start]
        for product, factor in zip(self.plan.parts[part].products, self.factors[part], strict=True):
            torch.mm(product.tables[orbits].flatten(1), factor, out=spectrum[product.parities].flatten(1))
        return spectrum

    def collect(self, part: int, orbits: slice, z: Sequence[Tensor], dy: Sequence[Tensor]) -> None:
        """Add the gradient for the radial values that the spectrum's gradient zᵀ dy amounts to."""
        if self.collected is None:
            self.collected = [[torch.zeros_like(factor) for factor in factors] for factors in self.factors]
            self.gradients = torch.empty_like(self.buffers[0])
        gradients = self.gradients[:, :, : orbits.stop - orbits.start]
        for into, out in _PARITIES:
            torch.bmm(z[into].mT, dy[out], out=gradients[into, out])
        for product, collected in zip(self.plan.parts[part].products, self.collected[part], strict=True):
            collected.addmm_(product.tables[orbits].flatten(1).T, gradients[product.parities].flatten(1))

    def gradient(self) -> Tensor:
        """The gradient collected, in the layout of the radial values."""
        total = torch.zeros_like(self.radial)
        for part, factors in zip(self.plan.parts, self.collected, strict=True):
            for product, factor in zip(part.products, factors, strict=True):
                shaped = factor.view(*product.tables.shape[1:], self.half, self.into, self.half, self.out)
                for term in product.terms:
                    total[term.map].add_(shaped[term.table, :, term.into, :, term.out], alpha=term.sign)
        return total.transpose(2, 3).contiguous()


@dataclass(frozen=True)
class _Block:
    """Some orbits of equal size: where their rows are, and how to act on them."""

    orbits: slice
    frequencies: slice
    batch: int

    def of(self, folded: Tensor) -> Tensor:
        """Their rows, (orbit, frequency · re/im · batch, width), a view for each parity."""
        rows = folded[:, self.frequencies.start * 2 * self.batch : self.frequencies.stop * 2 * self.batch]
        return rows.unflatten(1, (self.orbits.stop - self.orbits.start, -1))

    def weights(self, plan: SpectralPlan) -> Tensor:
        """The weight of each row, (orbit, frequency · re/im · batch, 1)."""
        weights = plan.weights[self.frequencies].repeat_interleave(2 * self.batch)
        return weights.view(self.orbits.stop - self.orbits.start, -1, 1)

    def twist(self, z: Tensor, part: Part, adjoint: bool = False) -> Tensor:
        """``z`` times the character of ``part``, and times i (or -i for the adjoint) if it asks for that."""
        if part.character is None:
            return z
        split = z.view(-1, 2, self.batch, z.shape[2])
        signs = part.character[self.frequencies]
        if part.turned:
            turn = signs.new_tensor([1.0, -1.0] if adjoint else [-1.0, 1.0])
            return (split.flip(1) * (signs.unsqueeze(1) * turn).view(-1, 2, 1, 1)).view(z.shape)
        return (split * signs.view(-1, 1, 1, 1)).view(z.shape)


def _blocks(plan: SpectralPlan, spectrum: _Spectrum, batch: int) -> Iterator[_Block]:
    """All orbits, as many of equal size at a time as the spectrum's buffer holds."""
    frequency = 0
    for first, number, size in plan.classes:
        for start in range(0, number, spectrum.step):
            count = min(spectrum.step, number - start)
            orbits = slice(first + start, first + start + count)
            yield _Block(orbits, slice(frequency, frequency + count * size), batch)
            frequency += count * size
