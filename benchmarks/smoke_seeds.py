"""Clifford-steerable against plain ResNet on the demo's data, over several seeds: mean and spread of their errors.

    python benchmarks/smoke_seeds.py [--seeds 3] [--out runs/smoke_seeds] [key=value ...]

Trains what `cliffsteer demo` trains (networks of about equal parameters), plus the CS-ResNet with the published
implicit kernel, once per seed of the initial weights and of the order of the data, evaluates each on the held-out
trajectories, and writes results.csv and table.md into the folder. Runs that are there are kept. Further arguments go to
`cliffsteer train`.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import torch

MODELS = {
    "CS-ResNet, complete kernel": ["model=csresnet", "model.options.hidden_channels=18"],
    "CS-ResNet, implicit kernel": [
        "model=csresnet",
        "model.options.hidden_channels=12",
        "model.options.kernel=implicit",
    ],
    "ResNet": ["model=resnet", "model.options.hidden_channels=24"],
}
DATA = ["recipe=demo", "solver.resolution=32", "solver.buoyancy_range=[0.2,0.8]"]


def cliffsteer(*arguments: str) -> None:
    """Call the command line."""
    code = f"import sys; from cliffsteer.cli import main; sys.exit(main({list(arguments)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    """Train, evaluate, summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/smoke_seeds"))
    options, overrides = parser.parse_known_args()
    out: Path = options.out
    cliffsteer("generate", *DATA, f"out={out / 'data'}")
    rows = []
    for label, model in MODELS.items():
        for seed in range(options.seeds):
            run = out / f"{label.lower().replace(', ', '-').replace(' ', '-')}-{seed}"
            metrics = run / "metrics.json"
            if not metrics.exists():
                where = [f"data.root={out / 'data'}", f"name={run.name}", f"out={run}", f"trainer.seed={seed}"]
                cliffsteer("train", "experiment=demo", *model, *where, *overrides)
                cliffsteer("evaluate", f"run={run}", "steps=10")
            rows.append({"model": label, "seed": seed, **_errors(json.loads(metrics.read_text(encoding="utf-8")))})
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = _table(rows)
    (out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def _errors(metrics: dict) -> dict[str, float]:
    one, ten = metrics["one_step"], metrics["rollout"]
    return {
        "weights": metrics["weights"],
        "one step": one["model"]["overall"]["nrmse"][0],
        "ten steps": ten["model"]["overall"]["nrmse"][-1],
        "persistence, one step": one["persistence"]["overall"]["nrmse"][0],
        "persistence, ten steps": ten["persistence"]["overall"]["nrmse"][-1],
        "equivariance": metrics["equivariance"]["relative_error"],
    }


def _table(rows: list[dict]) -> str:
    lines = [
        "| model | weights | NRMSE, one step | NRMSE, ten steps | equivariance error |",
        "|---|---|---|---|---|",
    ]
    for label in MODELS:
        mine = [row for row in rows if row["model"] == label]
        one, ten = (_spread([row[key] for row in mine]) for key in ("one step", "ten steps"))
        worst = max(row["equivariance"] for row in mine)
        lines.append(f"| {label} | {mine[0]['weights']:,} | {one} | {ten} | {worst:.0e} |")
    first = rows[0]
    lines.append(
        f"| persistence | 0 | {first['persistence, one step']:.3f} | {first['persistence, ten steps']:.3f} | 0 |"
    )
    seeds = len({row["seed"] for row in rows})
    lines.append("")
    lines.append(
        f"Mean ± standard deviation over {seeds} seeds; {platform.machine()}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}."
    )
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
