"""``cliffsteer verify``: check every shard of a dataset."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from cliffsteer.datasets import verify


def run(config: DictConfig) -> None:
    """List what is wrong, one line each.

    Raises:
        ValueError: something is wrong.
    """
    problems = verify(config.root)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        raise ValueError(
            f"{config.root} has {len(problems)} problem(s), listed above: the `cliffsteer generate` that made it makes"
            " damaged and missing shards again."
        )
    sys.stdout.write(f"{config.root} is complete and sound.\n")
