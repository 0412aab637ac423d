"""What all steerable kernels share: radial values per map and orbit, assembled with a constant basis."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.kernels.basis import KernelBasis, kernel_basis


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
        super().__init__()
        self.algebra, self.group = algebra, group
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        basis, radius = self.basis, max(kernel_size // 2, 1)
        divisors = [algebra.dim * radius**degree for degree in basis.degrees]  # maps · divisors are whole numbers
        numerators = basis.maps * torch.tensor(divisors, dtype=torch.float64).view(-1, 1, 1, 1)
        by_point = rearrange(numerators.round().int(), "map out into point -> point map (out into)").contiguous()
        self.register_buffer("numerators", by_point, persistent=False)
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
        maps = self.numerators.to(values.dtype) / self.divisors.to(values.dtype).view(-1, 1)
        kernel = torch.bmm(per_point, maps).view(-1, o, i, nb, nb)
        return kernel.permute(1, 3, 2, 4, 0).reshape(o * nb, i * nb, *[self.kernel_size] * self.algebra.dim)

    def extra_repr(self) -> str:
        """Channels, size and group."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {self.algebra},"
            f" group={self.group!r}"
        )
