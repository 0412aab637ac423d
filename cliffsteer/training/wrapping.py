"""What is put around the forward pass of modules for training: block checkpoints, and full precision for some layers.

A wrapped module keeps its class, its name and its state; copies of it are wrapped as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cliffsteer.nn.fourier import SteerableSpectralConv
from cliffsteer.nn.group_spectral import GroupSpectralConv
from cliffsteer.nn.norm import GradeNorm, MVLayerNorm, ReferenceLayerNorm

FULL_PRECISION = (
    GradeNorm,
    MVLayerNorm,
    ReferenceLayerNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    SteerableSpectralConv,
    GroupSpectralConv,
)
"""Layers that mixed precision leaves in float32. Norms divide by sums of squares, where in an indefinite metric large
numbers cancel, and transforms have a range that half precision has not. Kernels and the spectral strategy of the
convolution see to it themselves."""


def checkpoint_blocks(network: nn.Module) -> int:
    """Compute the inside of each block again in the backward pass instead of keeping it.

    Returns:
        The number of blocks.

    Raises:
        ValueError: a network without blocks.
    """
    found = list(blocks(network))
    if not found:
        raise ValueError(
            f"`trainer.checkpoint_blocks`: {type(network).__name__} holds no blocks, modules with parts in a"
            " Sequential or ModuleList: set it to false."
        )
    for block in found:
        block.forward = functools.partial(_checkpointed, block.forward)
    return len(found)


def keep_full_precision(network: nn.Module) -> None:
    """Make the layers of `FULL_PRECISION` compute in the precision of their weights, whatever autocast says."""
    for module in network.modules():
        if isinstance(module, FULL_PRECISION):
            module.forward = functools.partial(_in_full_precision, module.forward)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: what its outermost Sequentials and ModuleLists hold, if it has parts with weights.

    Such are the residual blocks of every network of `cliffsteer.models`.
    """
    for child in network.children():
        if not isinstance(child, nn.Sequential | nn.ModuleList):
            continue
        for item in child:
            if isinstance(item, nn.Sequential | nn.ModuleList):
                yield from blocks(nn.ModuleList([item]))
            elif any(True for child in item.children() for _ in child.parameters()):
                yield item


def named_parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a network whose gradients are worth a look: its children, items of those that hold blocks."""
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList) and any(True for _ in blocks(nn.ModuleList([child]))):
            yield from ((f"{name}.{number}", item) for number, item in child.named_children())
        else:
            yield name, child


def _checkpointed(forward: Callable[..., Any], *args: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False)


def _in_full_precision(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return forward(x)
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())
