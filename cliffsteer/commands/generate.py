"""``cliffsteer generate``: simulate trajectories and store them as a dataset."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import given_overrides, output_folder
from cliffsteer.datasets import DaskPool, LocalPool, Recipe, generate
from cliffsteer.datasets.pool import Pool
from cliffsteer.suggestions import suggestion

logger = logging.getLogger(__name__)

LAUNCHERS = ("local", "dask")


def run(config: DictConfig) -> None:
    """Generate the dataset, or what is missing of it.

    Raises:
        UsageError: no splits, or an unknown launcher.
    """
    if "splits={}" in (override.replace(" ", "") for override in given_overrides()):
        raise UsageError("`splits` is empty: give at least one, e.g. splits={train:48,valid:8,test:8}.")
    root = output_folder(config)
    generate(
        recipe(config), root, pool=pool(config), retries=config.retries, card=config.card, progress=config.progress
    )
    logger.info("The dataset is in %s; `cliffsteer verify root=%s` checks it.", root, root)


def pool(config: DictConfig) -> Pool:
    """What runs the simulations: processes of this machine, or the workers of a Dask cluster.

    Raises:
        UsageError: an unknown launcher, or a scheduler for one that has none.
        ValueError: fewer than one worker, or Dask is not installed.
    """
    launcher, scheduler = config.launcher, config.scheduler
    if launcher not in LAUNCHERS:
        hint = suggestion(launcher, LAUNCHERS) or f": choose from {', '.join(map(repr, LAUNCHERS))}."
        raise UsageError(f"`launcher` (={launcher!r}) is unknown{hint}")
    if launcher == "dask":
        return DaskPool(config.workers, scheduler)
    if scheduler is not None:
        raise UsageError(f"`scheduler` (={scheduler!r}) belongs to launcher=dask, but `launcher` is {launcher!r}.")
    return LocalPool(config.workers)


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
