"""``cliffsteer report``: write a page about evaluated runs."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import open_split, read_entry
from cliffsteer.report import write_report

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write the page.

    Raises:
        UsageError: no runs.
    """
    if not config.runs:
        raise UsageError("`runs` is empty: give evaluated runs as `cliffsteer report runs=[runs/a,runs/b]`.")
    entries = [read_entry(folder) for folder in config.runs]
    trajectories = open_split(entries[0].surrogate, config.root, entries[0].metrics["dataset"]["split"])
    commands = [f"cliffsteer train --config-dir {folder} --config-name config" for folder in config.runs]
    commands += [f"cliffsteer evaluate run={folder}" for folder in config.runs]
    path = write_report(entries, trajectories, config.out, config.title, commands=commands)
    logger.info("The report is in %s.", path)
