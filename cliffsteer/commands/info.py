"""``cliffsteer info``: what there is to choose from, one line each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.listing import options
from cliffsteer.suggestions import suggestion


def run(config: DictConfig) -> None:
    """Write the sections asked for to stdout.

    Raises:
        UsageError: no such section.
    """
    sections = {
        "solvers": _solvers,
        "datasets": lambda: options("dataset") | _datasets(Path(config.data)),
        "models": _models,
        "experiments": lambda: options("experiment"),
        "runs": lambda: _runs(Path(config.runs)),
    }
    for name in config.show:
        if name not in sections:
            raise UsageError(f"`show` (={name!r}) is no section{suggestion(name, sections)}; {', '.join(sections)}.")
    for name in config.show:
        lines = sections[name]()
        width = max(map(len, lines), default=0)
        sys.stdout.write(f"{name}\n")
        for key, line in lines.items() or [("none yet", "")]:
            sys.stdout.write(f"  {key:{width}}  {line}".rstrip() + "\n")


def _solvers() -> dict[str, str]:
    from cliffsteer import solvers

    return solvers.available()


def _models() -> dict[str, str]:
    from cliffsteer import models

    return models.available()


def _datasets(folder: Path) -> dict[str, str]:
    """Datasets found beneath a folder: path -> what it holds."""
    found = {}
    for file in sorted(folder.glob("*/dataset.json")):
        try:
            recipe = json.loads(file.read_text(encoding="utf-8"))["recipe"]
            splits = ", ".join(f"{count} {split}" for split, count in recipe["splits"].items())
            found[str(file.parent)] = f"{recipe['solver']}: {splits} trajectories of {recipe['frames']} frames"
        except (ValueError, KeyError, TypeError, AttributeError):
            found[str(file.parent)] = f"damaged: `cliffsteer verify root={file.parent}` says how"
    return found


def _runs(folder: Path) -> dict[str, str]:
    """Runs found beneath a folder: path -> how far they are."""
    found = {}
    states = {"metrics.json": "evaluated", "surrogate/config.json": "trained", "checkpoints": "unfinished"}
    for run in sorted(checkpoints.parent for checkpoints in folder.glob("**/checkpoints")):
        found[str(run)] = next(state for name, state in states.items() if (run / name).exists())
    return found
