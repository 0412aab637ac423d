"""The table of a study, as it stands in docs/results.md, and its numbers.

    python benchmarks/study_table.py runs/studies/NAME [--steps 1 5 10 20] [--out benchmarks/results/NAME.csv]

A row for each network and number of trajectories: mean ± standard error, over the seeds that are there, of the NRMSE
(mean over fields), in one step on all windows and after some steps of rollouts; persistence last.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import flat, grid, interval, text, write_csv

from cliffsteer.intervals import Estimate, estimate

LABEL = re.compile(r"(?P<network>.+?)(-n(?P<size>\d+))?-seed\d+$")
ERROR = "nrmse_"
"""Before the number of steps, in the names of columns."""
ROUNDING = 1e-10
"""Violations of the symmetries below it are due to rounding."""


def read_runs(folder: Path) -> dict[tuple[str, int | None], list[dict[str, Any]]]:
    """metrics.json of every evaluated run of a study, by network and number of trajectories.

    Raises:
        SystemExit: there are none.
    """
    runs = defaultdict(list)
    for path in sorted(folder.glob("*/metrics.json")):
        if match := LABEL.match(path.parent.name):
            size = int(match["size"]) if match["size"] else None
            runs[match["network"], size].append(json.loads(path.read_text(encoding="utf-8")))
    if not runs:
        raise SystemExit(f"There are no evaluated runs in {folder}: make them with `python benchmarks/study.py`.")
    return dict(runs)


def errors(metrics: Mapping[str, Any], who: str, steps: Sequence[int]) -> list[float | None]:
    """NRMSE, mean over fields: in one step (1), and after n steps of a rollout (n); None where it diverged."""
    one, rollout = (list(metrics[part][who]["fields"].values()) for part in ("one_step", "rollout"))
    found = [[field["nrmse"][step - 1] for field in (one if step == 1 else rollout)] for step in steps]
    return [None if None in values else statistics.mean(values) for values in found]


def rows(folder: Path, steps: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each network and number of trajectories, the best one first, and persistence.

    Raises:
        SystemExit: no runs, or steps that their rollouts do not have.
    """
    runs = read_runs(folder)
    longest = min(metrics["rollout"]["steps"] for members in runs.values() for metrics in members)
    if not all(1 <= step <= longest for step in steps):
        raise SystemExit(f"`--steps` (={steps}) must be from 1 to {longest}, the length of the rollouts in {folder}.")
    found = [_row(name, size, members, steps) for (name, size), members in runs.items()]
    found.sort(key=lambda row: (row["trajectories"] or 0, _mean(row[f"{ERROR}{steps[0]}"])))
    still = errors(next(iter(runs.values()))[0], "persistence", steps)
    last = {"network": "persistence", "weights": 0, "flops": 0, "violation": 0.0}
    last |= {f"{ERROR}{step}": estimate([error]) for step, error in zip(steps, still, strict=True)}
    return [*found, last]


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """The table of `rows`, or of its file, in Markdown."""
    table = [flat(row) for row in table]
    columns = {
        "network": lambda row: row["network"],
        "trajectories": lambda row: text(row.get("trajectories")),
        "seeds": lambda row: text(row.get("seeds")),
        "weights": lambda row: f"{row['weights']:,}",
        "MFLOP a sample": lambda row: f"{row['flops'] / 1e6:.3g}",
    }
    for name in table[0]:
        if name.startswith(ERROR) and not name.endswith("_error"):
            step = int(name.removeprefix(ERROR))
            head = "one step" if step == 1 else f"{step} steps"
            columns[head] = lambda row, name=name: interval(row, name, ".3f", ".3f")
    columns |= {
        "violation of the grid's symmetries": lambda row: _violation(row["violation"]),
        "training, s": lambda row: text(row.get("seconds"), ".0f"),
    }
    return grid(list(columns), [[cell(row) for cell in columns.values()] for row in table])


def _row(name: str, size: int | None, runs: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> dict[str, Any]:
    values = zip(*(errors(run, "model", steps) for run in runs), strict=True)
    return {
        "network": name,
        "trajectories": size,
        "seeds": len(runs),
        "weights": runs[0]["weights"],
        "flops": runs[0]["cost"]["flops"],
        **{f"{ERROR}{step}": estimate(of_seeds) for step, of_seeds in zip(steps, values, strict=True)},
        "violation": max(run["equivariance"]["relative_error"] for run in runs),
        "seconds": statistics.mean(run["training"]["seconds"] for run in runs),
    }


def _mean(error: Estimate | None) -> float:
    return math.inf if error is None else error.mean


def _violation(value: float) -> str:
    return "0" if value == 0 else "rounding" if value < ROUNDING else f"{value:.2f}"


def main() -> None:
    """Print the table, and write its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = rows(options.folder, options.steps)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_csv(table, options.out)
    print(markdown(table))


if __name__ == "__main__":
    main()
