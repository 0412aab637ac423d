"""``cliffsteer compare``: table and plots of many runs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from omegaconf import DictConfig

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import read_metrics, read_saved
from cliffsteer.comparison import Run, group_runs
from cliffsteer.comparison_table import columns_of, markdown, write_comparison

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write the table and the plots, and the table to stdout too. Runs that were not evaluated are left out.

    Raises:
        UsageError: no evaluated runs.
        FileNotFoundError: a folder that is not there.
    """
    folders = [config.runs] if isinstance(config.runs, str) else [str(folder) for folder in config.runs or ()]
    runs = []
    for folder in dict.fromkeys(folder.rstrip("/") for folder in folders):
        if not Path(folder).exists():
            raise FileNotFoundError(f"`runs`: {folder} does not exist; `cliffsteer info` lists runs.")
        if not (Path(folder) / "metrics.json").is_file():
            logger.info("%s is no evaluated run, left out (`cliffsteer evaluate run=%s`).", folder, folder)
            continue
        saved = read_saved(folder)
        runs.append(Run(Path(folder).name, read_metrics(folder), saved["model"], saved.get("training_config")))
    if not runs:
        raise UsageError("`runs` holds no evaluated run: give some, as in `cliffsteer compare runs/a runs/b`.")
    page = write_comparison(runs, output_folder(config), config.title)
    groups = group_runs(runs)
    sys.stdout.write(markdown(groups, columns_of(runs)))
    sys.stdout.write(f"\nTable, plots and page: {page}\n")
