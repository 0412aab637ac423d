"""Checks of arguments that all layers share."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra


def whole(name: str, value: Any, least: int = 1) -> int:
    """The value as a whole number.

    Raises:
        ValueError: anything else, or a number below ``least``.
    """
    number = _index(value)
    if number is None:
        way_out = ""
        if isinstance(value, (tuple, list)):
            way_out = ", one for all axes"
        elif isinstance(value, float) and value.is_integer():
            way_out = f": write {int(value)}"
        raise ValueError(f"`{name}` (={value!r}) must be a whole number, at least {least}{way_out}.")
    if number < least:
        raise ValueError(f"`{name}` (={number}) must be at least {least}.")
    return number


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether the value is a whole number, and not below ``least``."""
    number = _index(value)
    return number is not None and number >= least


def check_algebra(algebra: Any) -> None:
    """Raise a ValueError for anything but an algebra."""
    if not isinstance(algebra, CliffordAlgebra):
        way_out = f": write CliffordAlgebra({algebra!r})" if isinstance(algebra, (tuple, list)) else ""
        raise ValueError(f"`algebra` (={algebra!r}) must be a CliffordAlgebra{way_out}.")


def check_grid_axes(x: Tensor, algebra: CliffordAlgebra) -> None:
    """Raise unless (batch, channel, blade, *grid) has one grid axis per basis vector."""
    if x.ndim != 3 + algebra.dim:
        raise RuntimeError(
            f"`x` has shape {tuple(x.shape)}, expected {algebra.dim} grid axes after (batch, channel, blade)."
        )


def check_dtype(module: nn.Module, x: Tensor) -> None:
    """Raise unless ``x`` is real and has the dtype of the module's parameters; autocast mixes its own with float32."""
    weights = next((p.dtype for p in module.parameters()), x.dtype if x.is_floating_point() else torch.float32)
    if x.dtype == weights:
        return
    device = x.device.type
    if torch.is_autocast_enabled(device) and {x.dtype, weights} <= {torch.float32, torch.get_autocast_dtype(device)}:
        return
    name = str(weights).removeprefix("torch.")
    way_out = f"x.to(torch.{name})" if not x.is_complex() else "take real and imaginary part as two channels"
    raise RuntimeError(f"`x` has dtype {x.dtype}, but the weights of {type(module).__name__} {weights}: {way_out}.")


def _index(value: Any) -> int | None:
    """The value as an int, None for what is no whole number, like True."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
