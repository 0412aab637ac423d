"""Networks of equal cost: the width at which one network costs what another does."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.cost import count_weights, flops
from cliffsteer.grid import Grid
from cliffsteer.models import create, fit_to_grid
from cliffsteer.suggestions import question

MATCHES = ("params", "flops")
_WIDEST = 1024
_TOLERANCE = 0.25
_HEAVIEST = 2**30  # weights of a network whose operations are counted, which needs their memory

logger = logging.getLogger(__name__)


def match_width(
    name: str,
    options: Mapping[str, Any],
    target: nn.Module | float,
    by: str = "params",
    *,
    algebra: CliffordAlgebra,
    in_channels: int,
    out_channels: int,
    grid: Sequence[int],
) -> int:
    """The ``hidden_channels`` at which a network's cost is nearest to that of another.

    Args:
        name: of the network, a key of `cliffsteer.models.available()`.
        options: its options; ``hidden_channels`` among them is not read.
        target: the other network, or its cost.
        by: "params", see `cliffsteer.cost.count_weights`, or "flops" of a forward pass, see `cliffsteer.cost.flops`.
        algebra: the algebra of both.
        in_channels: multivectors in, of both.
        out_channels: multivectors out, of both.
        grid: cells along each axis, which "flops" are counted on.

    Raises:
        ValueError: an unknown network, option or ``by``, or a target that no width comes near: within a quarter.

    Example:
        >>> algebra = CliffordAlgebra((1, 1))
        >>> task = {"algebra": algebra, "in_channels": 4, "out_channels": 1, "grid": (32, 32)}
        >>> match_width("resnet", {"kernel_size": 5}, 100_000, **task)
        16
    """
    check_match(by)
    task = {"algebra": algebra, "in_channels": in_channels, "out_channels": out_channels, "grid": grid}

    @functools.cache
    def at(width: int) -> int:
        return _cost(name, {**options, "hidden_channels": width}, by, **task)

    goal = target
    if isinstance(target, nn.Module):
        shape = (1, in_channels, algebra.n_blades, *grid)
        goal = count_weights(target) if by == "params" else flops(target, shape)
    low, high = 0, 1  # at(low) < goal <= at(high)
    while at(high) < goal:
        if high >= _WIDEST:
            raise ValueError(
                f"`target` (={goal:.3g} {by}) is out of reach: {name!r} has {at(high):.3g} at width {high}."
            )
        step = min(2.0, math.sqrt(goal / at(high)))  # costs grow with the square of the width, or slower
        low, high = high, min(_WIDEST, max(high + 1, math.ceil(high * step)))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) < goal else (low, middle)
    best = low if low and goal - at(low) < at(high) - goal else high
    if not abs(at(best) - goal) <= _TOLERANCE * goal:
        possible = ", ".join(f"{at(width):,} at width {width}" for width in (low, high, high + 1)[not low :])
        raise ValueError(
            f"`target` (={goal:,.0f} {by}) is not met within {_TOLERANCE:.0%} by any width of {name!r}, which has"
            f" {possible}: match another number, or give it other options."
        )
    logger.info("%s has width %d: %d %s, %.3g of those asked for.", name, best, at(best), by, at(best) / goal)
    return best


def matched_options(
    model: Mapping[str, Any],
    *,
    algebra: CliffordAlgebra,
    in_channels: int,
    out_channels: int,
    grid: Grid,
) -> dict[str, Any]:
    """The options of a model's config, with the width that ``match`` and ``like`` ask for.

    Args:
        model: keys ``name`` and ``options``; ``match`` ("params", "flops" or "none") and ``like``, the network to
            match, again with ``name`` and ``options``.
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        grid: the grid of the data.

    Raises:
        ValueError: a ``match`` without ``like``, or what `match_width` refuses.
    """
    options, by, like = dict(model.get("options") or {}), model.get("match"), model.get("like")
    if by in (None, "none"):
        return options
    check_match(by)
    if not isinstance(like, Mapping) or "name" not in like or set(like) - {"name", "options"}:
        raise ValueError(
            f"`model.like` (={like!r}) must name the network that `model.match` (={by!r}) is about, as in"
            " {name: csresnet, options: {hidden_channels: 24}}."
        )
    task = {"algebra": algebra, "in_channels": in_channels, "out_channels": out_channels, "grid": grid.shape}
    target = _cost(like["name"], fit_to_grid(like.get("options") or {}, grid), by, **task)
    return options | {"hidden_channels": match_width(model["name"], fit_to_grid(options, grid), target, by, **task)}


class _Unfilled(TorchFunctionMode):
    """Tensors that would hold noise hold nothing instead and take no memory: weights, of networks to be counted."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if function in (torch.empty, torch.randn):
            options["device"] = "meta"
        return function(*args, **options)


def _cost(
    name: str,
    options: Mapping[str, Any],
    by: str,
    *,
    algebra: CliffordAlgebra,
    in_channels: int,
    out_channels: int,
    grid: Sequence[int],
) -> int:
    """What a network would cost."""
    with _Unfilled():
        weights = count_weights(create(name, algebra, in_channels, out_channels, **options))
    if by == "params":
        return weights
    if weights > _HEAVIEST:
        raise ValueError(
            f"`hidden_channels` (={options.get('hidden_channels')}) gives {name!r} {weights:,} weights, too many to"
            " count its operations: take fewer, or match='params'."
        )
    with torch.random.fork_rng(devices=[]):  # what is drawn here must not change what is drawn later
        network = create(name, algebra, in_channels, out_channels, **options)
    return flops(network, (1, in_channels, algebra.n_blades, *grid))


def check_match(by: Any) -> None:
    """Raise a ValueError unless ``by`` is a way to match."""
    if by not in MATCHES:
        raise ValueError(f"`match` (={by!r}) must be 'params' or 'flops'.{question(str(by), MATCHES)}")
