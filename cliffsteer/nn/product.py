"""Layers built on the geometric product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import gelu_gate
from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.linear import MVLinear, check_channels
from cliffsteer.nn.norm import GradeNorm


class WeightedProduct(nn.Module):
    """Fully connected weighted geometric product <y_o>_k = Σ_n Σ_{jl} W[o, n, (j,k,l)] <<x_n>_j <r_n>_l>_k.

    One weight per pair of channels and per grade triple (left, out, right) that the product connects.
    Source: Ruhe et al. (2023), section 4; the table of blades makes it n_blades² work, not n_blades³.

    Args:
        algebra: the algebra.
        in_channels: channels of both factors.
        out_channels: channels of the product.
    """

    def __init__(self, algebra: CliffordAlgebra, in_channels: int, out_channels: int):
        super().__init__()
        check_algebra(algebra)
        self.algebra = algebra
        in_channels, out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, len(algebra.paths)))
        right, sign, path = product_tables(algebra)
        self.register_buffer("right", right.flatten(), persistent=False)
        self.register_buffer("sign", sign, persistent=False)
        self.register_buffer("path", path.flatten(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 1/(in (n + 1)))."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[1] * self.algebra.n_grades))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Multiply multivectors (batch, in_channels, blade, *grid) of equal shape."""
        for factor in (left, right):
            check_channels(self, factor, self.weight.shape[1], self.algebra)
        nb = self.algebra.n_blades
        sign = self.sign.to(left.dtype).view(nb, nb, *[1] * (left.ndim - 3))
        terms = left.unsqueeze(3) * (right.index_select(2, self.right).unflatten(2, (nb, nb)) * sign)
        weight = self.weight.index_select(2, self.path).unflatten(2, (nb, nb))
        return torch.einsum("onij,bnij...->boj...", weight, terms)


class GeometricProductLayer(nn.Module):
    """Products of each channel with a linear map of all: y = (W ∘ (x, norm(L x)) + M x) / sqrt(2).

    The first factor is the input, the second its (normalised) linear image; the linear term M x keeps first order.
    Source: Ruhe et al. (2023), section 4.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        first_order: add the linear term; without it there is no factor 1/sqrt(2).
        normalize: pass the second factor through a GradeNorm.
        norm: norm of the GradeNorm, "smooth" or "reference".
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        first_order: bool = True,
        normalize: bool = True,
        norm: str = "smooth",
    ):
        super().__init__()
        self.right = MVLinear(algebra, in_channels, in_channels, bias=False)
        self.norm = GradeNorm(algebra, in_channels, norm) if normalize else nn.Identity()
        self.product = WeightedProduct(algebra, in_channels, out_channels)
        self.linear = MVLinear(algebra, in_channels, out_channels) if first_order else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to multivectors (batch, in_channels, blade, *grid)."""
        y = self.product(x, self.norm(self.right(x)))
        return y if self.linear is None else (y + self.linear(x)) / math.sqrt(2)


class ChannelProduct(nn.Module):
    """Weighted geometric product channel by channel, <y_c>_k = Σ_{jl} W[c, (j,k,l)] <<a_c>_j <b_c>_l>_k.

    For grids: `WeightedProduct` without its sum over channels, 2 n_blades² multiplications a channel and point. For its
    gradient the terms are computed again, so that only the factors are kept in memory.

    Args:
        algebra: the algebra.
        channels: channels of both factors and of the product.
    """

    def __init__(self, algebra: CliffordAlgebra, channels: int):
        super().__init__()
        check_algebra(algebra)
        self.algebra = algebra
        self.weight = nn.Parameter(torch.empty(whole("channels", channels), len(algebra.paths)))
        right, sign, path = product_tables(algebra)
        self.right_blades = right.tolist()
        self.register_buffer("sign", sign, persistent=False)
        self.register_buffer("path", path.flatten(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 1/n_blades), which keeps the variance."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.algebra.n_blades))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Multiply multivectors (batch, channels, blade, *grid) of equal shape."""
        for factor in (left, right):
            check_channels(self, factor, len(self.weight), self.algebra)
        nb = self.algebra.n_blades
        weight = self.weight.index_select(1, self.path).unflatten(1, (nb, nb)) * self.sign.to(self.weight.dtype)
        multiply = _multiply if torch.compiler.is_compiling() else _Multiply.apply
        return multiply(left, right, weight, self.right_blades)


def _multiply(left: Tensor, right: Tensor, weight: Tensor, right_blades: Sequence[Sequence[int]]) -> Tensor:
    """y_cj = Σ_i w_cij a_ci b_ck, k = right_blades[i][j]; the weights bring the signs."""
    a, b, w = left.unbind(2), right.unbind(2), _weights(weight, left)
    blades = range(len(w))
    y: list[Tensor | None] = [None for _ in blades]
    for i, j in itertools.product(blades, blades):
        y[j] = _add_product(y[j], a[i] * b[right_blades[i][j]], w[i][j])
    return torch.stack(y, 2)


class _Multiply(torch.autograd.Function):
    """`_multiply`, of which only the factors are kept for the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(left: Tensor, right: Tensor, weight: Tensor, right_blades: Sequence[Sequence[int]]) -> Tensor:
        return _multiply(left, right, weight, right_blades)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.right_blades = inputs[3]

    @staticmethod
    def jvp(ctx: Any, d_left: Tensor, d_right: Tensor, d_weight: Tensor, _: None) -> Tensor:
        left, right, weight = ctx.saved_tensors
        terms = (d_left, right, weight), (left, d_right, weight), (left, right, d_weight)
        return sum(_multiply(*term, ctx.right_blades) for term in terms)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        left, right, weight = ctx.saved_tensors
        a, b, g, w = left.unbind(2), right.unbind(2), gradient.unbind(2), _weights(weight, left)
        blades = range(len(w))
        points = [0, *range(2, left.ndim - 1)]
        d_left: list[Tensor | None] = [None for _ in blades]
        d_right: list[Tensor | None] = [None for _ in blades]
        d_weight = []
        for i, j in itertools.product(blades, blades):
            k = ctx.right_blades[i][j]
            right_part = g[j] * b[k]
            d_left[i] = _add_product(d_left[i], right_part, w[i][j])
            d_right[k] = _add_product(d_right[k], g[j] * a[i], w[i][j])
            d_weight.append((right_part * a[i]).sum(points))
        return torch.stack(d_left, 2), torch.stack(d_right, 2), torch.stack(d_weight, 1).view_as(weight), None


def _weights(weight: Tensor, field: Tensor) -> list[list[Tensor]]:
    """Weights (channel, i, j) as [i][j] of shape (channel, 1, ...), to multiply one blade of a field."""
    spread = weight.movedim(0, 2).unflatten(2, (-1, *[1] * (field.ndim - 3)))
    return [list(row.unbind(0)) for row in spread.unbind(0)]


def _add_product(total: Tensor | None, factor: Tensor, weight: Tensor) -> Tensor:
    """The total, if any, plus factor · weight."""
    return factor * weight if total is None else torch.addcmul(total, factor, weight)


class ProductGELU(nn.Module):
    """Nonlinearity with products: y = GELU((x + W ∘ (x, norm(L x))) / sqrt(2)), W ∘ channel by channel.

    The gate of `MVGELU` sees scalars alone; the product first turns vectors, bivectors, ... of one point into scalars
    (and into each other), so that their invariants open the gates and fields interact, as u and ∇u do in u · ∇u.
    L mixes channels, a grade-wise linear map; the norm, a `GradeNorm`, keeps the product of first order in x, except
    for null multivectors (indefinite metrics), which no norm bounds: theirs is of second order.

    Args:
        algebra: the algebra.
        channels: number of channels.

    Shape:
        (batch, channels, blade, *grid), unchanged.
    """

    def __init__(self, algebra: CliffordAlgebra, channels: int):
        super().__init__()
        self.right = MVLinear(algebra, channels, channels, bias=False)
        self.norm = GradeNorm(algebra, channels)
        self.product = ChannelProduct(algebra, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the nonlinearity to multivectors with blades on axis 2."""
        y = (x + self.product(x, self.norm(self.right(x)))) / math.sqrt(2)
        return y * gelu_gate(y[:, :, :1])


def create_nonlinearity(name: str, algebra: CliffordAlgebra, channels: int) -> nn.Module:
    """A nonlinearity by name: "gelu" (`MVGELU`) or "product" (`ProductGELU`).

    Raises:
        ValueError: another name.
    """
    match name:
        case "gelu":
            return MVGELU()
        case "product":
            return ProductGELU(algebra, channels)
    raise ValueError(f"`nonlinearity` (={name!r}) must be 'gelu' or 'product'.")


def product_tables(algebra: CliffordAlgebra) -> tuple[Tensor, Tensor, Tensor]:
    """For left blade i and output blade j: right blade, sign, index of the grade path; each (2^n, 2^n)."""
    cayley = algebra.cayley
    right = cayley.abs().argmax(2)
    sign = cayley.sum(2)
    index = {path: p for p, path in enumerate(algebra.paths)}
    grades = algebra.grades
    path = [[index[grades[i], grades[j], grades[int(k)]] for j, k in enumerate(row)] for i, row in enumerate(right)]
    return right, sign, torch.tensor(path)
