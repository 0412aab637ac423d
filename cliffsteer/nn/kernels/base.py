"""What all steerable kernels share: radial values per map and orbit, assembled with a constant basis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.kernels.basis import KernelBasis, equivariant_maps, kernel_basis, map_degrees


class SteerableKernel(nn.Module):
    """K(x) = Σ_b r_b(orbit of x) M_b(x); subclasses say what r is, in `radial`.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis.
        group: "O", "SO" or "orthochronous", see `basis`.
    """

    def __init__(
        self, algebra: CliffordAlgebra, in_channels: int, out_channels: int, kernel_size: int, group: str = "O"
    ):
        check_algebra(algebra)
        super().__init__()
        self.algebra, self.group = algebra, group
        self.in_channels, self.out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.kernel_size = whole("kernel_size", kernel_size)
        basis, radius = self.basis, max(self.kernel_size // 2, 1)
        divisors = [algebra.dim * radius**degree for degree in basis.degrees]  # maps · divisors are whole numbers
        self.register_buffer("monomials", _monomials(basis.offsets), persistent=False)
        self.register_buffer("coefficients", _coefficients(algebra, group), persistent=False)
        self.register_buffer("divisors", torch.tensor(divisors), persistent=False)
        self.register_buffer("orbit", basis.orbit, persistent=False)

    @property
    def basis(self) -> KernelBasis:
        """The maps and orbits of the kernel's lattice."""
        return kernel_basis(self.algebra, self.kernel_size, self.group)

    def radial(self) -> Tensor:
        """Radial values, shape (maps, orbits, out_channels, in_channels); orbit 0 is the origin."""
        raise TypeError(f"{type(self).__name__} does not say what its radial values are.")

    def forward(self) -> Tensor:
        """The kernel, shape (out_channels · n_blades, in_channels · n_blades, *k), blades fastest."""
        o, i, nb = self.out_channels, self.in_channels, self.algebra.n_blades
        values = self.radial().index_select(1, self.orbit)  # (maps, points, o, i)
        per_point = values.permute(1, 2, 3, 0).reshape(len(self.orbit), o * i, -1)
        kernel = torch.bmm(per_point, self._maps(values.dtype)).view(-1, o, i, nb, nb)
        return kernel.permute(1, 3, 2, 4, 0).reshape(o * nb, i * nb, *[self.kernel_size] * self.algebra.dim)

    def _maps(self, dtype: torch.dtype) -> Tensor:
        """M_b at each point, (points, maps, out blade · in blade), made anew as they are many times larger."""
        numerators = (self.monomials.float() @ self.coefficients.float()).view(len(self.orbit), len(self.divisors), -1)
        return numerators.to(dtype) / self.divisors.to(dtype).view(-1, 1)  # numerators are whole, hence exact

    def extra_repr(self) -> str:
        """Channels, size and group."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {self.algebra},"
            f" group={self.group!r}"
        )


def _monomials(offsets: Tensor) -> Tensor:
    """1, x_a and x_a x_b with a <= b of each point, whole numbers, (points, monomials)."""
    a, b = torch.triu_indices(offsets.shape[1], offsets.shape[1])
    return torch.cat([torch.ones_like(offsets[:, :1]), offsets, offsets[:, a] * offsets[:, b]], 1).int()


def _coefficients(algebra: CliffordAlgebra, group: str) -> Tensor:
    """The maps times n as polynomials in x, whole numbers, (monomials, maps · out blade · in blade)."""
    n, degree = algebra.dim, torch.tensor(map_degrees(algebra, group)).view(-1, 1, 1)
    a, b = torch.triu_indices(n, n)
    differ = (a != b).view(-1, 1)
    units = torch.eye(n, dtype=torch.float64)
    points = torch.cat([units.new_zeros(1, n), units, units[a] + units[b] * differ])
    values = equivariant_maps(algebra, points.T, group).permute(3, 0, 1, 2)
    constant, single, pairs = values.split([1, n, len(a)])  # each map has one degree, so a few points tell all
    cross = pairs - (single[a] + single[b]) * differ.view(-1, 1, 1, 1)
    polynomial = torch.cat([constant, single * (degree == 1), cross * (degree == 2)])
    return (polynomial * n).round().int().flatten(1)
