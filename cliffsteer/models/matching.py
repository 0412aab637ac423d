"""Networks of equal cost: the width at which one network costs what another does."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.grid import Grid
from cliffsteer.models import create, fit_to_grid
from cliffsteer.models.cost import flops, parameters
from cliffsteer.suggestions import question

MATCHES = ("params", "flops")
_WIDEST = 1024


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
        by: "params", see `cost.parameters`, or "flops" of a forward pass, see `cost.flops`.
        algebra: the algebra of both.
        in_channels: multivectors in, of both.
        out_channels: multivectors out, of both.
        grid: cells along each axis, which "flops" are counted on.

    Raises:
        ValueError: an unknown network, option or ``by``, or a target that no width reaches.

    Example:
        >>> algebra = CliffordAlgebra((1, 1))
        >>> task = {"algebra": algebra, "in_channels": 4, "out_channels": 1, "grid": (32, 32)}
        >>> match_width("resnet", {"kernel_size": 5}, 100_000, **task)
        16
    """
    check_match(by)
    shape = (1, in_channels, algebra.n_blades, *grid)

    def cost(network: nn.Module) -> int:
        return parameters(network) if by == "params" else flops(network, shape)

    @functools.cache
    def at(width: int) -> int:
        with torch.random.fork_rng(devices=[]):  # what is drawn here must not change what is drawn later
            return cost(create(name, algebra, in_channels, out_channels, **{**options, "hidden_channels": width}))

    goal = cost(target) if isinstance(target, nn.Module) else target
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
    return low if low and goal - at(low) < at(high) - goal else high


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
    with torch.random.fork_rng(devices=[]):
        fitted = fit_to_grid(like.get("options") or {}, grid)
        target = create(like["name"], algebra, in_channels, out_channels, **fitted)
    task = {"algebra": algebra, "in_channels": in_channels, "out_channels": out_channels, "grid": grid.shape}
    return options | {"hidden_channels": match_width(model["name"], fit_to_grid(options, grid), target, by, **task)}


def check_match(by: Any) -> None:
    """Raise a ValueError unless ``by`` is a way to match."""
    if by not in MATCHES:
        raise ValueError(f"`match` (={by!r}) must be 'params' or 'flops'.{question(str(by), MATCHES)}")
