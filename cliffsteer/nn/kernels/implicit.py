"""Implicit steerable kernels: a Clifford group equivariant network of the relative position.

Source: Zhdanov et al., "Clifford-Steerable Convolutional Neural Networks" (ICML 2024), section 3 and appendix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.kernels.lattice import check_kernel_size, kernel_points
from cliffsteer.nn.norm import GradeNorm
from cliffsteer.nn.product import GeometricProductLayer, product_tables


def scalar_shell(q: Tensor, sigma: Tensor) -> Tensor:
    """sgn(q) exp(-|q| / 2σ²), with sgn(0) = +1: a function of the invariant q(x), discontinuous at the light cone."""
    return torch.where(q >= 0, 1.0, -1.0).to(q.dtype) * torch.exp(-q.abs() / (2 * sigma.square()))


class KernelNetwork(nn.Sequential):
    """[GeometricProductLayer, GradeNorm, MVGELU] × (layers - 1), then GeometricProductLayer.

    Args:
        algebra: the algebra.
        out_channels: multivectors out; one multivector in.
        hidden_channels: multivectors between the layers.
        layers: number of geometric product layers.
        norm: norm of the GradeNorms, "smooth" or "reference".
    """

    def __init__(self, algebra: CliffordAlgebra, out_channels: int, hidden_channels: int, layers: int, norm: str):
        widths = [1, *[hidden_channels] * (layers - 1), out_channels]
        modules: list[nn.Module] = []
        for i in range(layers):
            modules.append(GeometricProductLayer(algebra, widths[i], widths[i + 1], norm=norm))
            if i < layers - 1:
                modules += [GradeNorm(algebra, widths[i + 1], norm), MVGELU()]
        super().__init__(*modules)


class ImplicitKernel(nn.Module):
    """Steerable kernel K(x) = H(s(q(x)) · k(x)), K(gx) = ρ(g) K(x) ρ(g)⁻¹ for g in O(p, q).

    k is a Clifford group equivariant network of the multivector s₀(q(x)) + x; s a learned shell, one width per pair of
    channels and grade; H the kernel head, the partially weighted geometric product with the input: output grade j of
    <k>_i times input grade l has weight W[o, i, (i,j,l)]. As a function of x the kernel is steerable exactly; sampled
    on the lattice, so is the convolution under the lattice's symmetries.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        hidden_channels: width of the kernel network.
        layers: depth of the kernel network.
        norm: norm inside the kernel network, "smooth" or "reference".
        gain: "calibrated" scales the kernel once, at initialisation, so that white input of unit variance gives output
            of unit variance; "reference" is the published 20 / k^{n-1}.
        allow_even: accept even kernels, which have no centre and break equivariance (to compare with other code).

    Raises:
        ValueError: an even or non-positive kernel size, fewer than one layer, or an unknown option.
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
        super().__init__()
        check_kernel_size(kernel_size, allow_even)
        if layers < 1:
            raise ValueError(f"`layers` (={layers}) must be at least 1.")
        if gain not in ("calibrated", "reference"):
            raise ValueError(f"`gain` (={gain!r}) must be 'calibrated' or 'reference'.")
        self.algebra = algebra
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        x, q = kernel_points(algebra, kernel_size)
        self.register_buffer("position", x, persistent=False)
        self.register_buffer("q", q, persistent=False)
        left, sign, path = _head_tables(algebra)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("sign", sign, persistent=False)
        self.register_buffer("path", path, persistent=False)
        self.register_buffer("grade_of_blade", torch.tensor(algebra.grades), persistent=False)

        self.network = KernelNetwork(algebra, out_channels * in_channels, hidden_channels, layers, norm)
        self.position_width = nn.Parameter(torch.ones(()))
        self.shell_width = nn.Parameter(torch.empty(out_channels, in_channels, algebra.n_grades))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, len(algebra.paths)))
        self.register_buffer("gain", torch.ones((), dtype=torch.float64))
        self.reset_parameters(gain)

    def reset_parameters(self, gain: str = "calibrated") -> None:
        """Draw the shell and the head as in the published code, then fix the gain."""
        nn.init.uniform_(self.shell_width, 0.4, 0.6)
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_channels * self.algebra.n_grades))
        self.gain.fill_(20 / self.kernel_size ** (self.algebra.dim - 1) if gain == "reference" else 1)
        if gain == "calibrated":
            with torch.no_grad():
                variance = self.forward().square().flatten(1).sum(1).mean()
            self.gain.copy_(variance.rsqrt())

    def forward(self) -> Tensor:
        """The kernel, shape (out_channels · n_blades, in_channels · n_blades, *k), blades fastest."""
        multivectors = self.multivectors()
        o, i, nb = self.out_channels, self.in_channels, self.algebra.n_blades
        weight = self.weight.index_select(2, self.path) * self.sign.to(self.weight.dtype)
        kernel = multivectors.index_select(2, self.left) * weight.unsqueeze(-1)  # (o, i, out blade · in blade, points)
        kernel = kernel.view(o, i, nb, nb, -1).transpose(1, 2)
        return kernel.reshape(o * nb, i * nb, *[self.kernel_size] * self.algebra.dim)

    def multivectors(self) -> Tensor:
        """s(q(x)) · k(x) · gain at the kernel's points, shape (out_channels, in_channels, blade, points)."""
        dtype = self.weight.dtype
        q = self.q.to(dtype)
        scalar = scalar_shell(q, self.position_width)
        inputs = torch.cat([scalar.unsqueeze(0), self.position.to(dtype)])
        inputs = torch.cat([inputs, inputs.new_zeros(self.algebra.n_blades - len(inputs), inputs.shape[1])])
        k = self.network(inputs.view(1, 1, *inputs.shape))[0].unflatten(0, (self.out_channels, self.in_channels))
        shell = scalar_shell(q, self.shell_width.unsqueeze(-1)) * self.gain.to(dtype)
        return k * shell.index_select(2, self.grade_of_blade)

    def extra_repr(self) -> str:
        """Channels and size."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {self.algebra}"


def _head_tables(algebra: CliffordAlgebra) -> tuple[Tensor, Tensor, Tensor]:
    """For output blade l and input blade m, flattened: kernel blade, sign and grade path of their product."""
    nb = algebra.n_blades
    right, sign, path = product_tables(algebra)
    left = torch.empty(nb, nb, dtype=torch.long)
    columns = torch.arange(nb)
    head_sign, head_path = torch.empty(nb, nb), torch.empty(nb, nb, dtype=torch.long)
    for k in range(nb):
        left[columns, right[k]] = k
        head_sign[columns, right[k]] = sign[k].float()
        head_path[columns, right[k]] = path[k]
    return left.flatten(), head_sign.flatten(), head_path.flatten()
