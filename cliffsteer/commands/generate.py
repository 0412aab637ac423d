"""``cliffsteer generate``: simulate trajectories and store them as a dataset."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import given_overrides, output_folder
from cliffsteer.datasets import Recipe, generate

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Generate the dataset, or what is missing of it.

    Raises:
        UsageError: no splits.
    """
    if "splits={}" in (override.replace(" ", "") for override in given_overrides()):
        raise UsageError("`splits` is empty: give at least one, e.g. splits={train:48,valid:8,test:8}.")
    root = output_folder(config)
    generate(recipe(config), root, workers=config.workers, progress=config.progress)
    logger.info("The dataset is in %s; `cliffsteer verify root=%s` checks it.", root, root)


def recipe(config: DictConfig) -> Recipe:
    """The recipe that a config of this verb describes.

    Raises:
        ValueError: a number out of its range.
    """
    values = OmegaConf.to_container(config, resolve=True)
    options = dict(values["solver"])
    name = options.pop("name")
    splits = values["splits"] if values["n"] is None else _split(values["n"])
    names = ("frames", "every", "skip", "batch", "seed")
    return Recipe(name, options, splits, **{key: values[key] for key in names})


def _split(n: int) -> dict[str, int]:
    if n < 3:
        raise ValueError(f"`n` (={n}) must be at least 3: one trajectory each for train, valid and test.")
    held_out = max(1, n // 8)
    return {"train": n - 2 * held_out, "valid": held_out, "test": held_out}
