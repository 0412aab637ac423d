"""Implicit steerable kernels: a Clifford group equivariant network of the relative position.

Source: Zhdanov et al., "Clifford-Steerable Convolutional Neural Networks" (ICML 2024), section 3 and appendix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.checks import whole
from cliffsteer.nn.kernels.base import SteerableKernel
from cliffsteer.nn.kernels.lattice import check_kernel_size
from cliffsteer.nn.kernels.subalgebra import SubalgebraNetwork


def scalar_shell(q: Tensor, sigma: Tensor) -> Tensor:
    """sgn(q) exp(-|q| / 2σ²), with sgn(0) = +1: a function of the invariant q(x), discontinuous at the light cone."""
    return torch.where(q >= 0, 1.0, -1.0).to(q.dtype) * torch.exp(-q.abs() / (2 * sigma.square()))


class ImplicitKernel(SteerableKernel):
    """Steerable kernel K(x) = H(s(q(x)) · k(x)), K(gx) = ρ(g) K(x) ρ(g)⁻¹ for g in O(p, q).

    k is a Clifford group equivariant network of the multivector s₀(q(x)) + x; s a learned shell, one width per pair of
    channels and grade; H the kernel head, the partially weighted geometric product with the input: output grade j of
    <k>_i times input grade l has weight W[o, i, (i,j,l)]. Since k(x) = a(q) + b(q) x, the network is evaluated in
    span{1, x} and once per orbit of q, and the head reaches 3n + 1 of the 4n equivariant maps: identities, x ∧ and x ⌋.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        hidden_channels: width of the kernel network.
        layers: depth of the kernel network.
        norm: norm inside the kernel network, "smooth" or "reference".
        gain: "calibrated" scales the head once, at initialisation, so that white input of unit variance gives output
            of unit variance; "reference" is the published constant 20 / k^{n-1}.
        allow_even: accept even kernels, which have no centre and break equivariance (to compare with other code).

    Raises:
        ValueError: an even or non-positive kernel size, fewer than one layer or channel, or an unknown option.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        hidden_channels: int = 12,
        layers: int = 4,
        norm: str = "smooth",
        gain: str = "calibrated",
        allow_even: bool = False,
    ):
        check_kernel_size(kernel_size, allow_even)
        layers, hidden_channels = whole("layers", layers), whole("hidden_channels", hidden_channels)
        if gain not in ("calibrated", "reference"):
            raise ValueError(f"`gain` (={gain!r}) must be 'calibrated' or 'reference'.")
        super().__init__(algebra, in_channels, out_channels, kernel_size)
        radius = max(kernel_size // 2, 1)
        self.register_buffer("squares", (self.basis.q * radius**2).round().long(), persistent=False)
        self.register_buffer("rounded_q", None, persistent=False)
        self.network = SubalgebraNetwork(out_channels * in_channels, hidden_channels, layers, algebra.n_grades, norm)
        self.position_width = nn.Parameter(torch.ones(()))
        self.shell_width = nn.Parameter(torch.empty(out_channels, in_channels, 2))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3 * algebra.dim + 1))
        self.factor = 20 / kernel_size ** (algebra.dim - 1) if gain == "reference" else 1.0
        self.gain = gain
        nn.init.uniform_(self.shell_width, 0.4, 0.6)
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels * algebra.n_grades))
        if gain == "calibrated" and not self.weight.is_meta:
            with torch.no_grad():
                self.weight.mul_(self.forward().square().flatten(1).sum(1).mean().rsqrt())

    @property
    def q(self) -> Tensor:
        """The quadratic form of each orbit, exact on the light cone unless `rounded_q` is set."""
        if self.rounded_q is not None:
            return self.rounded_q
        return self.squares.to(self.weight.dtype) / max(self.kernel_size // 2, 1) ** 2

    def radial(self) -> Tensor:
        """Radial values, shape (maps, orbits, out_channels, in_channels)."""
        n, q = self.algebra.dim, self.q
        scalar = scalar_shell(q, self.position_width)
        z = self.network(torch.stack([scalar, torch.ones_like(q)]).unsqueeze(1), q)
        z = z.view(2, self.out_channels, self.in_channels, -1) * self.factor
        z = z * scalar_shell(q, self.shell_width.permute(2, 0, 1).unsqueeze(-1))
        a, b = z.permute(0, 3, 1, 2).unsqueeze(1)  # each (1, orbits, out, in)
        head = self.weight.permute(2, 0, 1).unsqueeze(1)  # (map, 1, out, in)
        values = torch.cat([a * head[: n + 1], b * head[n + 1 :]])
        missing = len(self.divisors) - len(values)
        return torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
