"""The table of a study, as it stands in docs/results.md.

    python benchmarks/study_table.py runs/studies/turbulence [--steps 1 5 10 20]

A row for each network and number of trajectories: mean ± standard error, over the seeds that are there, of the NRMSE
(mean over fields), in one step on all windows and after some steps of rollouts; persistence last.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABEL = re.compile(r"(?P<network>.+?)(-n(?P<size>\d+))?-seed\d+$")


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


def errors(metrics: Mapping[str, Any], who: str, steps: Sequence[int]) -> list[float]:
    """NRMSE, mean over fields: in one step (1), and after n steps of a rollout (n)."""
    one = metrics["one_step"][who]["fields"].values()
    rollout = metrics["rollout"][who]["fields"].values()
    return [statistics.mean(field["nrmse"][step - 1] for field in (one if step == 1 else rollout)) for step in steps]


def row(name: str, size: int | None, runs: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> tuple[Any, ...]:
    """Network, trajectories, seeds, weights, MFLOP, each error, violation of the symmetries, training time."""
    cells = [spread(values) for values in zip(*(errors(run, "model", steps) for run in runs), strict=True)]
    violation = max(run["equivariance"]["relative_error"] for run in runs)
    seconds = statistics.mean(run["training"]["seconds"] for run in runs)
    shown = "rounding" if violation < 1e-10 else f"{violation:.2f}"
    cost = f"{runs[0]['weights']:,}", f"{runs[0]['cost']['flops'] / 1e6:.3g}"
    return name, *([size] if size else []), len(runs), *cost, *cells, shown, f"{seconds:.0f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard error; the mean alone of a single value."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def table(folder: Path, steps: Sequence[int]) -> str:
    """The Markdown table of a study."""
    runs = read_runs(folder)
    sized = any(size for _, size in runs)
    heads = ["network", *(["trajectories"] if sized else []), "seeds", "weights", "MFLOP a sample"]
    heads += ["one step" if step == 1 else f"{step} steps" for step in steps]
    heads += ["violation of the grid's symmetries", "training, s"]
    order = sorted(runs, key=lambda key: (key[1] or 0, errors(runs[key][0], "model", steps)))
    rows = [row(name, size, runs[name, size], steps) for name, size in order]
    still = [f"{error:.3f}" for error in errors(next(iter(runs.values()))[0], "persistence", steps)]
    rows.append(("persistence", *(["–"] if sized else []), "–", "0", "0", *still, "0", "–"))
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 10, 20])
    options = parser.parse_args()
    print(table(options.folder, options.steps))


if __name__ == "__main__":
    main()
