"""Networks by name: `create("csresnet", algebra, in_channels, out_channels, **options)`.

Every network maps (batch, in_channels, blade, *grid) to (batch, out_channels, blade, *grid), a multivector a channel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.grid import Grid
from cliffsteer.models.clifford_resnet import CliffordResNet
from cliffsteer.models.csfno import CSFNO
from cliffsteer.models.csresnet import CSResNet
from cliffsteer.models.csunet import CSUNet
from cliffsteer.models.dilated_resnet import DilatedResNet
from cliffsteer.models.fno import FNO
from cliffsteer.models.resnet import ResNet
from cliffsteer.models.unet import UNet
from cliffsteer.suggestions import check_options, suggestion

MODELS: dict[str, Callable[..., nn.Module]] = {
    "csresnet": CSResNet,
    "csunet": CSUNet,
    "csfno": CSFNO,
    "resnet": ResNet,
    "dilated_resnet": DilatedResNet,
    "unet": UNet,
    "fno": FNO,
    "clifford_resnet": CliffordResNet,
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


def fit_to_grid(options: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
    """Options of a network, with the boundary of the data's grid in place of ``padding="grid"``."""
    return {**options, "padding": grid} if options.get("padding") == "grid" else dict(options)


__all__ = [
    "CSFNO",
    "FNO",
    "MODELS",
    "CSResNet",
    "CSUNet",
    "CliffordResNet",
    "DilatedResNet",
    "ResNet",
    "UNet",
    "available",
    "create",
    "fit_to_grid",
]
