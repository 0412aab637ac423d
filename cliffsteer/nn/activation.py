"""Equivariant activation."""

from __future__ import annotations

from torch import Tensor, nn

from cliffsteer.functional import gelu_gate


class MVGELU(nn.Module):
    """Multivectors gated by their scalar part: y = x · σ(2 sqrt(2/π) (s + 0.044715 s³)), s = <x>_0.

    The scalar part itself passes through the tanh form of GELU. Source: Ruhe et al. (2023), section 4.

    Shape:
        (batch, channel, blade, *grid), unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Gate multivectors with blades on axis 2."""
        return x * gelu_gate(x[:, :, :1])
