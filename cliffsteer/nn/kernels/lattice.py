"""The points of a convolution kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from cliffsteer.nn.checks import whole


def integer_offsets(dim: int, kernel_size: int) -> Tensor:
    """Offsets of the kernel's points in cells, int64, shape (k**dim, dim), C order, from -(k//2)."""
    axis = torch.arange(kernel_size) - kernel_size // 2
    return torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)


def check_kernel_size(kernel_size: int, allow_even: bool) -> None:
    """Refuse kernel sizes that are not positive whole numbers and, unless allowed, even ones.

    Raises:
        ValueError: see above.
    """
    if whole("kernel_size", kernel_size) % 2 == 0 and not allow_even:
        raise ValueError(
            f"`kernel_size` (={kernel_size}) must be odd: an even kernel has no centre, which breaks equivariance;"
            f" take {kernel_size + 1}."
        )
