"""The points of a convolution kernel: relative positions x and their invariant q(x)."""

from __future__ import annotations

import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra


def integer_offsets(dim: int, kernel_size: int) -> Tensor:
    """Offsets of the kernel's points in cells, int64, shape (k**dim, dim), C order, from -(k//2)."""
    axis = torch.arange(kernel_size) - kernel_size // 2
    return torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)


def kernel_points(algebra: CliffordAlgebra, kernel_size: int) -> tuple[Tensor, Tensor]:
    """Positions scaled to [-1, 1] and their quadratic form, float64.

    q is evaluated on the integer offsets and divided once, so it is exactly zero on the light cone and exactly equal on
    each orbit of the lattice's point group, in every precision.

    Args:
        algebra: the algebra; axis i of the kernel belongs to e_{i+1}.
        kernel_size: number of points k along each axis.

    Returns:
        x, shape (dim, k**dim), offsets / max(k//2, 1); and q(x), shape (k**dim,).
    """
    offsets = integer_offsets(algebra.dim, kernel_size)
    radius = max(kernel_size // 2, 1)
    q = (offsets.square() * torch.tensor(algebra.signature)).sum(1)
    return (offsets.double() / radius).T.contiguous(), q.double() / radius**2


def check_kernel_size(kernel_size: int, allow_even: bool) -> None:
    """Refuse kernel sizes that are not positive and, unless allowed, even ones.

    Raises:
        ValueError: see above.
    """
    if kernel_size < 1:
        raise ValueError(f"`kernel_size` (={kernel_size}) must be at least 1.")
    if kernel_size % 2 == 0 and not allow_even:
        raise ValueError(
            f"`kernel_size` (={kernel_size}) must be odd: an even kernel has no centre, which breaks equivariance;"
            f" take {kernel_size + 1}."
        )
