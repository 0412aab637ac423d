"""Checks of options that networks share."""

from __future__ import annotations

from collections.abc import Sequence

from cliffsteer.nn.checks import is_whole, whole


def count_blocks(hidden_channels: int, blocks: Sequence[int]) -> int:
    """The number of blocks of all stages together.

    Args:
        hidden_channels: width of the network, checked here too.
        blocks: number of blocks in each stage.

    Raises:
        ValueError: one of them is not a positive whole number, or `blocks` is no sequence of them.
    """
    whole("hidden_channels", hidden_channels)
    is_sequence = isinstance(blocks, Sequence) and not isinstance(blocks, str)
    if not is_sequence or not blocks or not all(is_whole(count) for count in blocks):
        raise ValueError(
            f"`blocks` (={blocks!r}) must hold a positive whole number of blocks for each stage, as in (2, 2, 2, 2)."
        )
    return sum(blocks)


def level_widths(hidden_channels: int, blocks: Sequence[int], growth: float) -> list[int]:
    """Channels on each level of a U-Net.

    Args:
        hidden_channels: of the finest level.
        blocks: number of blocks on each level.
        growth: factor from one level to the next.

    Raises:
        ValueError: as ``count_blocks``, or a growth below 1.
    """
    count_blocks(hidden_channels, blocks)
    if not growth >= 1:
        raise ValueError(f"`growth` (={growth!r}) must be at least 1.")
    return [round(hidden_channels * growth**level) for level in range(len(blocks))]


def check_domain_padding(share: float) -> None:
    """Check the cells around a domain, as a share of each axis.

    Raises:
        ValueError: it is negative, or 1 and more.
    """
    if not 0 <= share < 1:
        raise ValueError(f"`domain_padding` (={share}) must be a share from 0 to below 1.")


def check_dilations(dilations: Sequence[int]) -> None:
    """Check the steps between kernel points of convolutions.

    Raises:
        ValueError: they are no positive whole numbers.
    """
    is_sequence = isinstance(dilations, Sequence) and not isinstance(dilations, str)
    if not is_sequence or not dilations or not all(is_whole(step) for step in dilations):
        raise ValueError(f"`dilations` (={dilations!r}) must hold positive whole numbers, as in (1, 2, 4, 2, 1).")
