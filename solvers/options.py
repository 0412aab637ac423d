"""Checks of solvers' options: numbers that must be whole or positive, parameters given as a value or as a range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def whole(name: str, value: Any, least: int, what: str = "") -> int:
    """The value as an int.

    Raises:
        ValueError: it is not whole, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` (={value!r}) must be a whole number{what}, at least {least}.")
    return int(value)


def choice(name: str, value: Any, choices: Sequence[Any], why: str = "") -> Any:
    """The value.

    Raises:
        ValueError: it is none of the choices.
    """
    if isinstance(value, bool) or value not in choices:
        raise ValueError(f"`{name}` (={value!r}) must be {' or '.join(repr(c) for c in choices)}{why}.")
    return value


def number(name: str, value: Any, unit: str = "", low: float = -math.inf, above: float = -math.inf) -> float:
    """The value as a float.

    Args:
        name: of the option.
        value: what was given.
        unit: of the option, for the message.
        low: lowest value allowed.
        above: values must exceed this.

    Raises:
        ValueError: it is no finite number in this range.
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (fits and value >= low and value > above):
        rule = f" above {above:g}" if above > -math.inf else f", at least {low:g}" if low > -math.inf else ""
        raise ValueError(f"`{name}` (={value!r}) must be a finite number{f' in {unit}' if unit else ''}{rule}.")
    return float(value)


def vector(name: str, values: Any, axes: int, unit: str = "") -> tuple[float, ...]:
    """The components of a vector, one for each axis.

    Raises:
        ValueError: there are more or fewer of them, or one is no finite number.
    """
    components = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else ()
    if len(components) != axes:
        raise ValueError(f"`{name}` (={values!r}) must have {axes} components{f', in {unit}' if unit else ''}.")
    return tuple(number(name, component, unit) for component in components)


def read_pair(name: str, pair: Any, unit: str = "", **limits: float) -> tuple[float, float]:
    """The lowest and the highest value of what is drawn.

    Raises:
        ValueError: it is not a pair of finite numbers in order, or exceeds the limits of ``number``.
    """
    values = list(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else []
    if len(values) != 2:
        raise ValueError(f"`{name}` (={pair!r}) must be a pair (lowest, highest).")
    lowest, highest = (number(name, value, unit, **limits) for value in values)
    if lowest > highest:
        raise ValueError(f"`{name}` (={pair!r}) must be a pair (lowest, highest), lowest <= highest.")
    return lowest, highest


def number_range(name: str, pair: Any, low: float = -math.inf, above: float = -math.inf) -> tuple[float, float] | None:
    """The option ``{name}_range``, lowest and highest value of what each trajectory draws, or None.

    Raises:
        ValueError: as ``read_pair``.
    """
    return None if pair is None else read_pair(f"{name}_range", pair, low=low, above=above)


def value_or_range(
    name: str, value: Any, pair: Any, default: float, unit: str = "", low: float = -math.inf, above: float = -math.inf
) -> tuple[float, tuple[float, float] | None]:
    """The options ``{name}`` and ``{name}_range``, of which one may be given: (value or default, range or None).

    Raises:
        ValueError: both are given, or one is out of range.
    """
    if value is not None and pair is not None:
        raise ValueError(f"`{name}` (={value}) and `{name}_range` (={pair}) exclude each other: give one of them.")
    fixed = default if value is None else number(name, value, unit, low, above)
    return fixed, number_range(name, pair, low, above)


def draw(pair: tuple[float, float] | None, value: float, generator: torch.Generator) -> Tensor:
    """A uniform draw from the range, or the value without one; shape (1,), float64. Advances the generator alike."""
    fraction = torch.rand(1, dtype=torch.float64, generator=generator)
    if pair is None:
        return torch.full_like(fraction, value)
    return pair[0] + (pair[1] - pair[0]) * fraction


def require_values(name: str, values: Tensor, unit: str = "", low: float = -math.inf, above: float = -math.inf) -> None:
    """Raise a ValueError unless each trajectory's parameter is finite and in range.

    Args:
        name: of the parameter field.
        values: its components, shape (batch, component).
        unit: for the message.
        low: lowest value allowed.
        above: values must exceed this.
    """
    good = values.isfinite() & (values >= low) & (values > above)
    if not bool(good.all()):
        which = int((~good).any(1).nonzero()[0])
        rule = f" and above {above:g}" if above > -math.inf else f" and at least {low:g}" if low > -math.inf else ""
        shown = ", ".join(f"{v:g}" for v in values[which].tolist()) + (f" {unit}" if unit else "")
        raise ValueError(f"`{name}` (={shown}) must be finite{rule}: so it is not in trajectory {which} of the batch.")
