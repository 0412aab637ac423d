"""Checks of options that all residual networks share."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral


def count_blocks(hidden_channels: int, blocks: Sequence[int]) -> int:
    """The number of blocks of all stages together.

    Args:
        hidden_channels: width of the network, checked here too.
        blocks: number of blocks in each stage.

    Raises:
        ValueError: one of them is not a positive whole number, or `blocks` is no sequence of them.
    """
    if not is_positive(hidden_channels):
        raise ValueError(f"`hidden_channels` (={hidden_channels!r}) must be a positive whole number.")
    is_sequence = isinstance(blocks, Sequence) and not isinstance(blocks, str)
    if not is_sequence or not blocks or not all(is_positive(count) for count in blocks):
        raise ValueError(
            f"`blocks` (={blocks!r}) must hold a positive whole number of blocks for each stage, as in (2, 2, 2, 2)."
        )
    return sum(blocks)


def is_positive(value: object) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0
