"""``cliffsteer report``: write a page about evaluated runs."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from omegaconf import DictConfig

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import open_split, read_entry
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.datasets.recipe import recipe_overrides
from cliffsteer.overrides import override
from cliffsteer.report import Entry, write_report

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write the page.

    Raises:
        UsageError: no runs.
    """
    folders = [config.runs] if isinstance(config.runs, str) else list(config.runs or ())
    if not folders:
        raise UsageError("`runs` is empty: give evaluated runs as `cliffsteer report runs=[runs/a,runs/b]`.")
    entries = [read_entry(str(folder)) for folder in folders]
    trajectories = open_split(entries[0].surrogate, config.root, entries[0].metrics["dataset"]["split"])
    commands = again([str(folder) for folder in folders], entries, trajectories)
    path = write_report(entries, trajectories, config.out, config.title, commands=commands)
    logger.info("The report is in %s.", path)


def again(folders: Sequence[str], entries: Sequence[Entry], trajectories: TrajectoryDataset) -> list[str]:
    """Command lines that make dataset, runs and report again; the runs in new folders beside the old ones.

    Args:
        folders: of the runs.
        entries: the runs.
        trajectories: what they were evaluated on.
    """
    lines = [["generate", *recipe_overrides(trajectories.manifest.recipe), override("out", trajectories.root)]]
    news = [f"{folder.rstrip('/')}-again" for folder in folders]
    for old, new in zip(folders, news, strict=True):
        lines.append(["train", "--config-dir", old, "--config-name", "config", override("out", new)])
    for new, entry in zip(news, entries, strict=True):
        data, steps = entry.metrics["dataset"], entry.metrics.get("rollout", {}).get("steps", 0)
        numbers = {"split": data["split"], "history": data["history"], "steps": steps}
        words = {"run": new, "root": trajectories.root, **numbers}
        lines.append(["evaluate", *(override(key, value) for key, value in words.items())])
    lines.append(["report", override("runs", news), override("root", trajectories.root)])
    return [shlex.join(["cliffsteer", *line]) for line in lines]
