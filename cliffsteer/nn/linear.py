"""Grade-wise linear maps between multivector channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.checks import check_algebra, whole


class MVLinear(nn.Module):
    """Linear map of channels, one matrix per grade: <y_o>_k = Σ_i W[o, i, k] <x_i>_k + b_o δ_{k0}.

    These are all the linear maps between multivectors that commute with O(p, q) (Ruhe et al. 2023, section 4).

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        bias: add a learned scalar to each output; other grades admit no equivariant bias.
        per_grade: one matrix per grade; otherwise one for all grades together.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid); any number of grid axes, even none.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        per_grade: bool = True,
    ):
        super().__init__()
        check_algebra(algebra)
        in_channels, out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.algebra, self.per_grade = algebra, per_grade
        shape = (out_channels, in_channels, algebra.n_grades) if per_grade else (out_channels, in_channels)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.register_buffer("grade_of_blade", torch.tensor(algebra.grades), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 1/in), which keeps the variance, and the bias from N(0, 0.01/in)."""
        in_channels = self.weight.shape[1]
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels))
        if self.bias is not None:
            nn.init.normal_(self.bias, std=0.1 / math.sqrt(in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map to multivectors with channels on axis 1 and blades on axis 2."""
        check_channels(self, x, self.weight.shape[1], self.algebra)
        if self.per_grade:
            weight = self.weight.index_select(2, self.grade_of_blade)
            y = torch.einsum("oik,bik...->bok...", weight, x)
        else:
            y = torch.einsum("oi,bik...->bok...", self.weight, x)
        return add_scalar_bias(y, self.bias)

    def extra_repr(self) -> str:
        """Channels and options."""
        out, into = self.weight.shape[:2]
        return f"{into}, {out}, signature={self.algebra.signature}, bias={self.bias is not None}"


def add_scalar_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    """Add one number per channel to the scalar blade of (batch, channel, blade, *grid)."""
    if bias is None:
        return x
    scalar = x[:, :, :1] + bias.view(-1, *[1] * (x.ndim - 2))
    return torch.cat([scalar, x[:, :, 1:]], 2)


def check_channels(module: nn.Module, x: Tensor, channels: int, algebra: CliffordAlgebra) -> None:
    """Raise unless ``x`` is (batch, channels, n_blades, ...)."""
    if x.ndim < 3 or x.shape[1] != channels or x.shape[2] != algebra.n_blades:
        raise RuntimeError(
            f"`x` has shape {tuple(x.shape)}, but {type(module).__name__} expects (batch, {channels},"
            f" {algebra.n_blades}, ...): {channels} channel(s) of {algebra.n_blades} blades."
        )
