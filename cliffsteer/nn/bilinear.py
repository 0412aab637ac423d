"""The bilinear map of geometric products, channel by channel: y_cj = Σ_i w_cij a_ci b_ck, with k = table[i, j].

The outer products a_ci b_ck of a few rows (samples and channels) at a time are contracted by a matrix product for all
points at once: few operations, and what they pass on stays in the cache. Only the factors are kept for the gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

CACHED = 2**18
"""Numbers of outer products that are made at a time on a CPU; a mebibyte in single precision."""
LAUNCHED = 2**26
"""The same on other devices, where few launches matter more."""


def multiply(left: Tensor, right: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """The products of multivectors.

    Args:
        left: a, shape (batch, channel, blade, *grid).
        right: b, the same shape.
        weight: w, shape (channel, i, j), signs included.
        table: 1 where k = table[i, j] and 0 elsewhere, shape (i, j, k).

    Returns:
        y, the same shape as the factors, in the widest of the dtypes.
    """
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), weight.dtype)
    device = left.device.type
    plain = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
    with plain:
        return _Multiply.apply(left.to(dtype), right.to(dtype), weight.to(dtype), table.to(dtype))


def multiply_by_blades(left: Tensor, right: Tensor, weight: Tensor, table: Sequence[Sequence[int]]) -> Tensor:
    """The same as a sum of products of blades, which compilers fuse and programs can be exported with.

    Args:
        left: as for `multiply`.
        right: as for `multiply`.
        weight: as for `multiply`.
        table: k for each i and j.
    """
    a, b = left.unbind(2), right.unbind(2)
    w = weight.movedim(0, 2).unflatten(2, (-1, *[1] * (left.ndim - 3)))
    blades = range(len(table))
    y: list[Any] = [0 for _ in blades]
    for i, j in itertools.product(blades, blades):
        y[j] = y[j] + a[i] * b[table[i][j]] * w[i, j]
    return torch.stack(y, 2)


class _Multiply(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(left: Tensor, right: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        return _contract(torch.einsum("cij,ijk->cjik", weight, table), left, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, d_left: Tensor, d_right: Tensor, d_weight: Tensor, _: None) -> Tensor:
        left, right, weight, table = ctx.saved_tensors
        terms = (d_left, right, weight), (left, d_right, weight), (left, right, d_weight)
        return sum(_Multiply.forward(*term, table) for term in terms)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        left, right, weight, table = ctx.saved_tensors
        d_left = _contract(torch.einsum("cij,ijk->cijk", weight, table), gradient, right)
        d_right = _contract(torch.einsum("cij,ijk->ckji", weight, table), gradient, left)
        return d_left, d_right, _weight_gradient(gradient, right, left, table), None


def _contract(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Σ_mn M_comn u_cm v_cn at every point; matrix (channel, o, m, n)."""
    rows = _rows(u), _rows(v), matrix.flatten(2).repeat(len(u), 1, 1)
    parts = [torch.bmm(m, _outer(a, b)) for a, b, m in zip(*(_split(row, u) for row in rows), strict=True)]
    return torch.cat(parts).view(u.shape)


def _weight_gradient(gradient: Tensor, right: Tensor, left: Tensor, table: Tensor) -> Tensor:
    """Σ over samples and points of g_cj b_ck a_ci with k = table[i, j], shape (channel, i, j)."""
    rows = _rows(gradient), _rows(right), _rows(left)
    parts = [torch.bmm(_outer(g, b), a.mT) for g, b, a in zip(*(_split(row, left) for row in rows), strict=True)]
    nb = len(table)
    every = torch.cat(parts).view(*left.shape[:2], nb, nb, nb).sum(0)  # (channel, j, k, i)
    return torch.einsum("cjki,ijk->cij", every, table)


def _outer(u: Tensor, v: Tensor) -> Tensor:
    """u_m v_n of (row, blade, point), shape (row, m · n, point)."""
    return (u.unsqueeze(2) * v.unsqueeze(1)).flatten(1, 2)


def _rows(field: Tensor) -> Tensor:
    """(batch, channel, blade, *grid) as (batch · channel, blade, point)."""
    return field.flatten(3).flatten(0, 1) if field.ndim > 3 else field.flatten(0, 1).unsqueeze(2)


def _split(rows: Tensor, field: Tensor) -> tuple[Tensor, ...]:
    """Rows in parts whose outer products are not too many."""
    limit = CACHED if field.device.type == "cpu" else LAUNCHED
    return rows.split(max(1, limit // (field.shape[2] ** 2 * max(1, math.prod(field.shape[3:])))))
