"""Steerable kernels: modules whose output is a kernel (out_channels · n_blades, in_channels · n_blades, *k).

A conditional kernel is a function of the convolution's input and gives a kernel for each of its samples.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.kernels.complete import CompleteKernel
from cliffsteer.nn.kernels.conditional import ConditionalKernel
from cliffsteer.nn.kernels.implicit import ImplicitKernel
from cliffsteer.suggestions import check_options, suggestion

KERNELS: dict[str, type[nn.Module]] = {
    "implicit": ImplicitKernel,
    "complete": CompleteKernel,
    "conditional": ConditionalKernel,
}
"""Kernels by name, as in configurations and checkpoints."""


def create_kernel(
    name: str, algebra: CliffordAlgebra, in_channels: int, out_channels: int, kernel_size: int, /, **options: Any
) -> nn.Module:
    """A steerable kernel by name; an option that is None takes the kernel's own default.

    Raises:
        ValueError: an unknown name or option (with a suggestion), or an option's value out of its range.
    """
    if name not in KERNELS:
        raise ValueError(
            f"`kernel` (={name!r}) must be one of {', '.join(map(repr, KERNELS))}{suggestion(name, KERNELS)}."
        )
    options = {key: value for key, value in options.items() if value is not None}
    check_options(f"kernel {name!r}", KERNELS[name], 4, options)
    return KERNELS[name](algebra, in_channels, out_channels, kernel_size, **options)


__all__ = ["KERNELS", "CompleteKernel", "ConditionalKernel", "ImplicitKernel", "create_kernel"]
