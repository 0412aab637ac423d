"""A Clifford group equivariant network on the commutative subalgebra span{1, x}, x a vector with x² = q.

A network that is fed only scalars and one vector x never leaves multivectors a + b x:

    (a + b x)(c + d x) = (ac + bd q) + (ad + bc) x

so two numbers stand for 2^n blades, and they depend on x through q alone. Of the weights of `CEGNN` only those of
grades 0 and 1 and of the four products (scalar, vector) × (scalar, vector) are alive; only these are parameters here.
For the same weights the result is that of `CEGNN`, to rounding.

Layout: (part, channel, orbit), part 0 the scalar a, part 1 the coefficient b of x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cliffsteer.functional import gelu_gate
from cliffsteer.nn.norm import choose_norm

PATHS = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))
"""Grade triples (left, out, right) of products of scalars and vectors that stay scalars or vectors."""


class SubalgebraLinear(nn.Module):
    """Grade-wise linear map: weights (out, in, 2) and, if asked, a bias on the scalars."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__()
        std = 1 / math.sqrt(in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 2) * std)
        self.bias = nn.Parameter(torch.randn(out_channels) * 0.1 * std) if bias else None

    def forward(self, z: Tensor) -> Tensor:
        """Apply the map to (part, channel, orbit)."""
        y = torch.bmm(self.weight.permute(2, 0, 1), z)
        return y if self.bias is None else torch.stack([y[0] + self.bias.unsqueeze(-1), y[1]])


class SubalgebraGradeNorm(nn.Module):
    """Grade-wise normalisation by norm(a²) and norm(b² q), as `GradeNorm`."""

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.norm = choose_norm(norm)
        self.factor = nn.Parameter(torch.zeros(channels, 2))

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Normalise (part, channel, orbit)."""
        norms = self.norm(torch.stack([z[0].square(), z[1].square() * q]))
        return z / (torch.sigmoid(self.factor.T.unsqueeze(-1)) * (norms - 1) + 1 + 1e-6)


class SubalgebraProduct(nn.Module):
    """y = (Σ_n W[o, n, path] x_n norm(L x)_n + M x) / sqrt(2), as `GeometricProductLayer`."""

    def __init__(self, in_channels: int, out_channels: int, n_grades: int, norm: str):
        super().__init__()
        self.right = SubalgebraLinear(in_channels, in_channels, bias=False)
        self.norm = SubalgebraGradeNorm(in_channels, norm)
        self.weight = nn.Parameter(
            torch.randn(out_channels, in_channels, len(PATHS)) / math.sqrt(in_channels * n_grades)
        )
        self.linear = SubalgebraLinear(in_channels, out_channels)

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Apply the layer to (part, channel, orbit)."""
        (a, b), (c, d) = z, self.norm(self.right(z), q)
        ss, sv, vv, vs = self.weight.unbind(-1)  # left and right factor: scalar or vector
        y = torch.stack([ss @ (a * c) + vv @ (b * d * q), sv @ (a * d) + vs @ (b * c)])
        return (y + self.linear(z)) / math.sqrt(2)


class SubalgebraNetwork(nn.Module):
    """`CEGNN` with one multivector in, restricted to span{1, x}.

    Args:
        out_channels: multivectors out.
        hidden_channels: multivectors between the layers.
        layers: number of product layers.
        n_grades: n + 1; it only sets the initial variance of the product's weights.
        norm: norm of the grade norms, "smooth" or "reference".
    """

    def __init__(self, out_channels: int, hidden_channels: int, layers: int, n_grades: int, norm: str):
        super().__init__()
        widths = [1, *[hidden_channels] * (layers - 1), out_channels]
        self.products = nn.ModuleList(
            SubalgebraProduct(widths[i], widths[i + 1], n_grades, norm) for i in range(layers)
        )
        self.norms = nn.ModuleList(SubalgebraGradeNorm(width, norm) for width in widths[1:-1])

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Map (2, 1, orbit) to (2, out_channels, orbit), given q of each orbit."""
        for product, norm in zip(self.products, self.norms, strict=False):
            z = norm(product(z, q), q)
            z = z * gelu_gate(z[:1])
        return self.products[-1](z, q)
