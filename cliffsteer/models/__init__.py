"""Networks by name: `create("csresnet", algebra, in_channels, out_channels, **options)`.

Every network maps (batch, in_channels, blade, *grid) to (batch, out_channels, blade, *grid), a multivector a channel.
"""

from __future__ import annotations

import functools
import inspect
import logging
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
from cliffsteer.models.gfno import GFNO
from cliffsteer.models.resnet import ResNet
from cliffsteer.models.steerable_resnet import SteerableResNet
from cliffsteer.models.unet import UNet
from cliffsteer.suggestions import check_options, suggestion

logger = logging.getLogger(__name__)

MODELS: dict[str, Callable[..., nn.Module]] = {
    "csresnet": CSResNet,
    "csunet": CSUNet,
    "csfno": CSFNO,
    "resnet": ResNet,
    "dilated_resnet": DilatedResNet,
    "unet": UNet,
    "fno": FNO,
    "clifford_resnet": CliffordResNet,
    "steerable_resnet": SteerableResNet,
    "gfno": GFNO,
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


def with_defaults(model: Mapping[str, Any]) -> dict[str, Any]:
    """Name and options of a network with its defaults, so that later ones change nothing of it."""
    if model.get("name") not in MODELS:  # a network of one's own
        return dict(model)
    parameters = list(inspect.signature(MODELS[model["name"]]).parameters.values())[3:]
    return {"name": model["name"], **{p.name: p.default for p in parameters if p.default is not p.empty}, **model}


def fit_to_grid(options: Mapping[str, Any], grid: Grid) -> dict[str, Any]:
    """Options of a network, with what the data's grid has in place of ``padding="grid"`` and ``extent="grid"``.

    Raises:
        ValueError: lengths in several units in place of an extent.
    """
    fitted = dict(options)
    if options.get("padding") == "grid":
        fitted["padding"] = grid
    if options.get("extent") == "grid":
        if len(set(grid.unit)) > 1:
            raise ValueError(f"`extent` (='grid') needs a grid of one unit, this one is in {', '.join(grid.unit)}.")
        fitted["extent"] = grid.extent
    spectral = "domain_padding" in options or options.get("extent") == "grid"
    if spectral and not options.get("domain_padding") and not grid.is_periodic:
        _warn_of_walls(grid.boundary)
    return fitted


@functools.cache
def _warn_of_walls(boundary: tuple[tuple[str, str], ...]) -> None:
    """Say once that Fourier space stands for a periodic domain."""
    logger.warning(
        "Spectral layers take the domain as periodic, but its sides are %s: what leaves on one side comes in on the"
        " other; give the network `domain_padding`, as 0.25, or take another.",
        ", ".join(" and ".join(dict.fromkeys(sides)) for sides in boundary),
    )


__all__ = [
    "CSFNO",
    "FNO",
    "GFNO",
    "MODELS",
    "CSResNet",
    "CSUNet",
    "CliffordResNet",
    "DilatedResNet",
    "ResNet",
    "SteerableResNet",
    "UNet",
    "available",
    "create",
    "fit_to_grid",
    "with_defaults",
]
