"""Input-conditioned steerable kernels: the kernel network also sees a pooled multivector of the input field.

Source: Szarvas and Zhdanov, "Conditional Clifford-Steerable CNNs with Complete Kernel Basis for PDE Modeling"
(arXiv 2510.14007). Written from its equations.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.cegnn import CEGNN
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.kernels.implicit import scalar_shell
from cliffsteer.nn.kernels.lattice import check_kernel_size, integer_offsets
from cliffsteer.nn.linear import MVLinear, check_channels

_POINTS = 32  # along each axis of the grids that a new kernel is calibrated for


class ConditionalKernel(nn.Module):
    """Kernel K(v; c) = H(s(q(v)) · k(v, c)) of the offset v and of a condition c pooled from the input field.

        c = L mean_x f(x),   K(gv; ρ(g) c) = ρ(g) K(v; c) ρ(g)⁻¹  for g in O(p, q)

    k is a Clifford group equivariant network of the multivectors s₀(q(v)) + v and c, L a grade-wise linear map, s a
    learned shell (a width per pair of channels and grade) and H the kernel head of `ImplicitKernel`, with a weight for
    each of the grade triples, since k(v, c) has all grades. Each sample of a batch has its own kernel. For c without
    grades above 0 the network stays in span{1, v} and the kernel is an implicit one; a vector in c picks a direction,
    which frees the n - 1 maps that the implicit kernel lacks and more, but only where the field has a mean.

    The convolution stays equivariant: translations leave the mean of a periodic field as it is, and g turns it along.
    On a grid with walls the ghost cells have no part in the mean.

    The head is scaled once, at initialisation, so that white input of unit variance on 32 points an axis gives output
    of unit variance. There the mean is close to 0; a mean of the size of the field gives several times the variance.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        hidden_channels: width of the kernel network.
        layers: depth of the kernel network.
        condition_channels: multivectors in the condition.
        norm: norm inside the kernel network, "smooth" or "reference".

    Raises:
        ValueError: an even or non-positive kernel size, fewer than one layer or channel of the condition.
    """

    conditional: ClassVar[bool] = True
    """The kernel is a function of the convolution's input."""

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        hidden_channels: int = 12,
        layers: int = 4,
        condition_channels: int = 4,
        norm: str = "smooth",
    ):
        check_algebra(algebra)
        check_kernel_size(kernel_size, allow_even=False)
        in_channels, out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        condition_channels = whole("condition_channels", condition_channels)
        super().__init__()
        self.algebra = algebra
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        offsets, radius = integer_offsets(algebra.dim, kernel_size), max(kernel_size // 2, 1)
        self.register_buffer("squares", (offsets.square() * torch.tensor(algebra.signature)).sum(1), persistent=False)
        self.register_buffer("offsets", offsets.T.contiguous(), persistent=False)  # whole: exact in every precision
        self.radius = radius
        self.condition = MVLinear(algebra, in_channels, condition_channels, bias=False)
        self.network = CEGNN(algebra, 1 + condition_channels, out_channels * in_channels, hidden_channels, layers, norm)
        self.position_width = nn.Parameter(torch.ones(()))
        self.shell_width = nn.Parameter(torch.empty(out_channels, in_channels, algebra.n_grades).uniform_(0.4, 0.6))
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, len(algebra.paths)))
        left, sign, path = _head_tables(algebra)
        self.register_buffer("left", left.flatten(), persistent=False)
        self.register_buffer("sign", sign.flatten(), persistent=False)
        self.register_buffer("path", path.flatten(), persistent=False)
        self.register_buffer("grade_of_blade", torch.tensor(algebra.grades), persistent=False)
        if not self.weight.is_meta:
            self._calibrate()

    @torch.no_grad()
    def _calibrate(self) -> None:
        pooled = torch.randn(4, self.in_channels, self.algebra.n_blades)
        pooled *= _POINTS ** (-self.algebra.dim / 2)  # the mean of a white field is as small as this
        kernels = self.at(self._positions(), pooled)
        self.weight.mul_(math.sqrt(len(kernels) * self.out_channels * self.algebra.n_blades) / kernels.norm())

    def forward(self, x: Tensor) -> Tensor:
        """The kernels for an input field.

        Args:
            x: shape (batch, in_channels, blade, *grid).

        Returns:
            Shape (batch, out_channels · n_blades, in_channels · n_blades, *k), blades fastest.
        """
        pooled = x.flatten(3).mean(3, dtype=torch.promote_types(x.dtype, self.weight.dtype))
        kernel = self.at(self._positions(), pooled.to(self.weight.dtype))
        size = [self.kernel_size] * self.algebra.dim
        return kernel.permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], *self._matrix, *size)

    def at(self, positions: tuple[Tensor, Tensor], pooled: Tensor) -> Tensor:
        """The kernel as a function, at any positions.

        Args:
            positions: offsets in units of the kernel's radius, (dim, points), and their quadratic form, (points,).
            pooled: the field's mean, (batch, in_channels, blade).

        Returns:
            Shape (batch, out_channels, in_channels, out blade, in blade, points).
        """
        check_channels(self, pooled, self.in_channels, self.algebra)
        z = self.network(self._network_input(*positions, self.condition(pooled)))
        z = z.unflatten(1, (self.out_channels, self.in_channels))
        shell = scalar_shell(positions[1], self.shell_width.unsqueeze(-1)).index_select(2, self.grade_of_blade)
        weight = self.weight.index_select(2, self.path) * self.sign.to(z.dtype)
        entries = (z * shell).index_select(3, self.left) * weight.unsqueeze(-1)
        return entries.unflatten(3, (self.algebra.n_blades, self.algebra.n_blades))

    @property
    def _matrix(self) -> tuple[int, int]:
        return self.out_channels * self.algebra.n_blades, self.in_channels * self.algebra.n_blades

    def _positions(self) -> tuple[Tensor, Tensor]:
        """The lattice's offsets in units of the radius, and q, exactly zero on the light cone."""
        return self.offsets.to(self.weight) / self.radius, self.squares.to(self.weight) / self.radius**2

    def _network_input(self, x: Tensor, q: Tensor, condition: Tensor) -> Tensor:
        """The multivector s₀(q) + x and the condition, (batch, 1 + condition_channels, blade, points)."""
        points, n = x.shape[1], self.algebra.dim
        rest = x.new_zeros(self.algebra.n_blades - n - 1, points)
        position = torch.cat([scalar_shell(q, self.position_width).unsqueeze(0), x, rest])
        everywhere = condition.unsqueeze(-1).expand(*condition.shape, points)
        return torch.cat([position.expand(condition.shape[0], 1, -1, -1), everywhere], 1)

    def extra_repr(self) -> str:
        """Channels and size."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {self.algebra}"


def _head_tables(algebra: CliffordAlgebra) -> tuple[Tensor, Tensor, Tensor]:
    """For output blade j and input blade l: the blade k with e_k e_l = ± e_j, that sign, and the grade path."""
    left, sign = algebra.cayley.abs().argmax(0), algebra.cayley.sum(0)
    index = {path: p for p, path in enumerate(algebra.paths)}
    grades = algebra.grades
    path = [[index[grades[int(k)], grades[j], grades[i]] for i, k in enumerate(row)] for j, row in enumerate(left)]
    return left, sign, torch.tensor(path)
