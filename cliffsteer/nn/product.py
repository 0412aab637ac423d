"""Layers built on the geometric product."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import gelu_gate
from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.bilinear import multiply, multiply_by_blades
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

    For grids: `WeightedProduct` without its sum over channels. Of it only the factors are kept for the gradient, see
    `bilinear`.

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
        self.register_buffer("table", F.one_hot(right, algebra.n_blades).to(sign.dtype), persistent=False)
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
        if torch.compiler.is_compiling():
            return multiply_by_blades(left, right, weight, self.right_blades)
        return multiply(left, right, weight, self.table)


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
