"""``cliffsteer publish``: save a trained and evaluated run with its metrics and a model card, and push it to a hub."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import load_surrogate, read_metrics

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write the folder, and push it when a repository is given.

    Raises:
        UsageError: the run was evaluated by an older cliffsteer or trained on since, or the package that pushes is
            missing.
        FileNotFoundError: no such run, or it was not evaluated.
    """
    surrogate, metrics = load_surrogate(config.run, "cpu"), read_metrics(config.run)
    if "settings" not in metrics:
        raise UsageError(f"{config.run} was evaluated by an older cliffsteer: `cliffsteer evaluate run={config.run}`.")
    out = output_folder(config)
    if out.resolve() == Path(config.run).resolve():
        raise UsageError(f"`out` (={out}) is the run itself: give another folder.")
    surrogate.save_pretrained(out, metrics=metrics)
    logger.info("Published in %s; `cliffsteer verify run=%s` measures it again.", out, out)
    if config.hub is not None:
        from cliffsteer.hub import push

        try:
            address = push(out, config.hub, config.private)
        except ImportError as error:
            raise UsageError(f"`hub` (={config.hub}): {error}") from error
        logger.info("Pushed: %s", address)
