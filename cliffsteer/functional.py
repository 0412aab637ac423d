"""Parameter-free operations on multivector fields in the layout (batch, channel, blade, *grid)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_norm(q: Tensor, epsilon: float = 1e-2) -> Tensor:
    """Norm (q² + ε²)^{1/4} ≈ sqrt(|q|) of multivectors with quadratic form q: smooth, for either sign of q.

    On null multivectors (q = 0) it is sqrt(ε), never zero; ``epsilon`` is in the unit of q.
    """
    return (q.square() + epsilon**2).sqrt().sqrt()


def gelu_gate(scalar: Tensor) -> Tensor:
    """σ(2 sqrt(2/π) (s + 0.044715 s³)), so that s · gate(s) is the tanh form of GELU."""
    return torch.sigmoid(2 * math.sqrt(2 / math.pi) * scalar * (1 + 0.044715 * scalar.square()))


def convolve(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1, groups: int = 1) -> Tensor:
    """Cross-correlation Σ_v K(v) f(x + v) without padding, on 1 to 4 grid axes.

    Args:
        x: shape (batch, c_in, *grid).
        kernel: shape (c_out, c_in / groups, *k).
        stride: step between output points, the same on all axes.
        dilation: step between kernel points, the same on all axes.
        groups: equal parts of the channels, each convolved by itself.

    Returns:
        Shape (batch, c_out, *grid').
    """
    dim = kernel.ndim - 2
    if dim <= 3:
        return (F.conv1d, F.conv2d, F.conv3d)[dim - 1](x, kernel, None, stride, 0, dilation, groups)
    return _convolve_by_slices(x, kernel, stride, dilation, groups)


def convolve_each(x: Tensor, kernels: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """`convolve` with a kernel for each sample, as batched matrix products.

    It keeps a copy of the field for each tap, but the batch may be empty, or a symbol of `torch.export`, which the
    groups of a grouped convolution may not be.

    Args:
        x: shape (batch, c_in, *grid).
        kernels: shape (batch, c_out, c_in, *k).
        stride: step between output points, the same on all axes.
        dilation: step between kernel points, the same on all axes.

    Returns:
        Shape (batch, c_out, *grid').
    """
    dim = kernels.ndim - 3
    for axis, taps in enumerate(kernels.shape[3:]):
        x = x.unfold(2 + axis, dilation * (taps - 1) + 1, stride)[..., ::dilation]
    windows = x.movedim(tuple(range(2, 2 + dim)), tuple(range(-dim, 0)))  # (batch, c_in, *k, *grid')
    y = torch.bmm(kernels.flatten(2), windows.flatten(-dim).flatten(1, -2))
    return y.unflatten(2, windows.shape[-dim:])


def widened(x: Tensor, grid: Sequence[int], share: float) -> Tensor:
    """Zeros around the domain, a share of the cells of each axis on both sides; the last axes are those of the grid."""
    return F.pad(x, [side for n in reversed(grid) for side in (round(share * n),) * 2])


def shrunk(x: Tensor, grid: Sequence[int]) -> Tensor:
    """What `widened` was given: the middle of the last axes."""
    for axis, n in enumerate(grid, x.ndim - len(grid)):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def block_mean(x: Tensor, factor: int, dim: int) -> Tensor:
    """Mean over blocks of ``factor`` cells along each of the last ``dim`` axes.

    Raises:
        RuntimeError: an axis that is no multiple of the factor.
    """
    for axis in range(x.ndim - dim, x.ndim):
        if x.shape[axis] % factor:
            raise RuntimeError(f"the grid {tuple(x.shape[-dim:])} must have multiples of {factor} cells on every axis.")
        x = x.unflatten(axis, (-1, factor)).mean(axis + 1)
    return x


def repeat_cells(x: Tensor, factor: int, dim: int) -> Tensor:
    """Repeat each cell ``factor`` times along each of the last ``dim`` axes."""
    for axis in range(x.ndim - dim, x.ndim):
        shape = [*x.shape[: axis + 1], factor, *x.shape[axis + 1 :]]
        x = x.unsqueeze(axis + 1).expand(shape).flatten(axis, axis + 1)
    return x


def insert_zeros(x: Tensor, stride: int, dim: int) -> Tensor:
    """A grid ``stride`` times finer along each of the last ``dim`` axes, zero but at one cell of each block.

    It is the block's middle cell where there is one (odd strides), the first otherwise.
    """
    low = (stride - 1) // 2 if stride % 2 else 0
    for axis in range(x.ndim - dim, x.ndim):
        x = F.pad(x.unsqueeze(axis + 1), [0, 0] * (x.ndim - 1 - axis) + [low, stride - 1 - low]).flatten(axis, axis + 1)
    return x


def check_reach(grid: Sequence[int], reach: int) -> None:
    """Raise unless a kernel that spans ``reach`` cells fits on the grid."""
    if min(grid) < reach:
        raise RuntimeError(
            f"the grid {tuple(grid)} is smaller than the kernel, which spans {reach} cells along each axis:"
            " take a smaller `kernel_size` or a larger grid."
        )


def _convolve_by_slices(x: Tensor, kernel: Tensor, stride: int, dilation: int, groups: int) -> Tensor:
    """Convolution on n axes as a sum, over the taps of the first, of convolutions on the n - 1 others."""
    taps = kernel.shape[2]
    length = (x.shape[2] - dilation * (taps - 1) - 1) // stride + 1
    out: Tensor | None = None
    for tap in range(taps):
        planes = x.narrow(2, tap * dilation, (length - 1) * stride + 1)[:, :, ::stride]
        folded = planes.transpose(1, 2).flatten(0, 1)  # (batch · length, c_in, *rest)
        term = convolve(folded, kernel[:, :, tap], stride, dilation, groups)
        out = term if out is None else out + term
    assert out is not None
    return out.unflatten(0, (x.shape[0], length)).transpose(1, 2)


def transposed(x: Tensor) -> Tensor:
    """(batch, a, b) -> (batch, b, a) in memory; the batch may be a symbol of `torch.export`.

    On CPUs a product with the identity does it in blocks and on all cores, which a copy does not.
    """
    narrow = min(x.shape[1:])
    if x.device.type != "cpu" or narrow > 128:
        return x.transpose(1, 2).contiguous()
    one = torch.eye(narrow, dtype=x.dtype).expand(x.shape[0], narrow, narrow)
    return torch.bmm(x.mT, one) if narrow == x.shape[1] else torch.bmm(one, x.mT)


def pad_axis(x: Tensor, axis: int, low: int, high: int, modes: tuple[str, str], signs: Tensor | None = None) -> Tensor:
    """Extend one grid axis by ``low`` and ``high`` ghost cells.

    Args:
        x: any tensor.
        axis: the axis to extend.
        low: number of ghost cells before the first cell.
        high: number of ghost cells after the last cell.
        modes: for each side "zeros"; "periodic"; "symmetric" (ghost cells repeat the cells next to the wall in
            reverse order); "mirror" (the same, multivectors reflected in the wall); or "conductor" (minus that).
        signs: for these two, the signs of the reflection along the blade axis, broadcastable against ``x``.
    """
    parts = [x]
    if low:
        parts.insert(0, _ghosts(x, axis, low, modes[0], signs, first=True))
    if high:
        parts.append(_ghosts(x, axis, high, modes[1], signs, first=False))
    return torch.cat(parts, axis) if len(parts) > 1 else x


def _ghosts(x: Tensor, axis: int, width: int, mode: str, signs: Tensor | None, first: bool) -> Tensor:
    length = x.shape[axis]
    if mode == "zeros":
        return x.new_zeros([width if i == axis else n for i, n in enumerate(x.shape)])
    if length < width:
        raise RuntimeError(f"`x` has {length} cells on axis {axis}, fewer than the padding of {width}.")
    if mode == "periodic":
        return x.narrow(axis, length - width if first else 0, width)
    ghosts = x.narrow(axis, 0 if first else length - width, width).flip(axis)
    if mode in ("mirror", "conductor") and signs is not None:
        return ghosts * signs if mode == "mirror" else ghosts * -signs
    return ghosts


def reflection_signs(blades: Sequence[tuple[int, ...]], axis: int) -> list[float]:
    """Signs of the reflection e_axis -> -e_axis on each blade."""
    return [-1.0 if axis in blade else 1.0 for blade in blades]
