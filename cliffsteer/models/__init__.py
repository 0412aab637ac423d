"""Networks by name: `create("csresnet", algebra, in_channels, out_channels, **options)`.

Every network maps (batch, in_channels, blade, *grid) to (batch, out_channels, blade, *grid), a multivector a channel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.csfno import CSFNO
from cliffsteer.models.csresnet import CSResNet
from cliffsteer.models.csunet import CSUNet
from cliffsteer.models.resnet import ResNet
from cliffsteer.suggestions import check_options, suggestion

MODELS: dict[str, Callable[..., nn.Module]] = {
    "csfno": CSFNO,
    "csresnet": CSResNet,
    "csunet": CSUNet,
    "resnet": ResNet,
}
"""Networks by the names that configurations and checkpoints use; names outlive classes."""


def available() -> dict[str, str]:
    """The registered networks: name -> one line."""
    return {name: inspect.getdoc(model).splitlines()[0] for name, model in MODELS.items()}


def create(name: str, algebra: CliffordAlgebra, in_channels: int, out_channels: int, /, **options: Any) -> nn.Module:
    """A network by name.

    Args:
        name: a key of `available()`.
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        options: options of the network's constructor.

    Raises:
        ValueError: an unknown name or option (with a suggestion), or an option's value out of its range.
    """
    if name not in MODELS:
        raise ValueError(f"`model` (={name!r}) is unknown{suggestion(name, MODELS)}; available: {', '.join(MODELS)}.")
    check_options(f"model {name!r}", MODELS[name], 3, options)
    return MODELS[name](algebra, in_channels, out_channels, **options)


__all__ = ["CSFNO", "MODELS", "CSResNet", "CSUNet", "ResNet", "available", "create"]
