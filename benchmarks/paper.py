"""The published experiments: every network, training-set size and seed of one of them, and a table beside the papers'.

    python benchmarks/paper.py ns64 --tier small [--jobs 2] [--out runs/studies/paper_ns64-small] [key=value ...]

The experiments are the studies ``paper_*`` (``study.py`` says what is in one), with one more key:

    boosted    overrides of `cliffsteer generate`, after those of ``data``, for a second test set of a spacetime

Tiers: "full" is the papers' size and wants a GPU, "small" takes under an hour on two CPU cores, "groups" compares
symmetry groups at the small size. The same command resumes: runs that are finished are kept. It ends with
``OUT/paper.md`` and ``OUT/paper.csv``, and with the tables and figures of `cliffsteer compare` in ``OUT/comparison``;
``--table`` makes them of the runs that are there. Further arguments go to every `cliffsteer train`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import study
from paper_table import BASELINE, Result, markdown, read_result, rows
from study_runs import Run, finished, run_all
from tables import write_csv

PREFIX = "paper_"


def experiments() -> list[str]:
    """Names of the experiments."""
    return sorted(path.stem.removeprefix(PREFIX) for path in study.STUDIES.glob(f"{PREFIX}*.yaml"))


def planned(settings: dict[str, Any], out: Path) -> list[tuple[Run, str, int | None]]:
    """The runs of a study, each with the network's name and the number of training trajectories."""
    sizes = settings.get("sizes") or [None]
    keys = itertools.product(settings["seeds"], sizes, settings["networks"])
    boosted = (f"boosted={out / 'boosted'}",) if settings.get("boosted") else ()
    return [
        (replace(run, evaluate=(*run.evaluate, *boosted)), network, size)
        for run, (_, size, network) in zip(study.runs(settings, out), keys, strict=True)
    ]


def make_data(settings: dict[str, Any], out: Path) -> None:
    """Generate what is missing of the dataset and of the boosted test set."""
    study.cliffsteer("generate", *settings["data"], f"out={out / 'data'}")
    if settings.get("boosted"):
        from cliffsteer.datasets import read_manifest

        count = read_manifest(out / "data").recipe.splits["test"]
        splits = f"splits={{train:1,valid:1,test:{count}}}"
        study.cliffsteer("generate", *settings["data"], *settings["boosted"], splits, f"out={out / 'boosted'}")


def results(runs: Sequence[tuple[Run, str, int | None]]) -> list[Result]:
    """The results of the runs that are done."""
    return [read_result(run.folder, network, size) for run, network, size in runs if finished(run)]


def write_tables(found: Sequence[Result], name: str, tier: str, out: Path) -> None:
    """Write paper.md and paper.csv."""
    table = rows(found, name, tier)
    data, rollout = found[0].metrics["dataset"], found[0].metrics.get("rollout", {})
    about = (
        f"# {name}, tier {tier}\n\nMean ± standard error over seeds, on the {data['trajectories']} {data['split']}"
        f" trajectories ({data['windows']} windows, all of them). MSE: mean over all components, in the fields' units."
        f" Rollouts of {rollout.get('steps', 0)} steps: NRMSE of the last frame. Data that {BASELINE} needs: how many"
        " times more trajectories it takes it to the same error, between the sizes measured, on logarithmic axes."
    )
    write_csv(table, out / "paper.csv")
    (out / "paper.md").write_text(markdown(table, name, about), encoding="utf-8")
    print(f"The table is in {out / 'paper.md'} and {out / 'paper.csv'}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, train, evaluate, put into tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=experiments())
    parser.add_argument("--tier", default="small")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    options, overrides = parser.parse_known_args(arguments)
    settings = study.read_study(PREFIX + options.experiment, options.tier) | {"last": overrides}
    out = options.out or Path("runs/studies") / f"{PREFIX}{options.experiment}-{options.tier}"
    runs, failures = planned(settings, out), []
    if not options.table:
        make_data(settings, out)
        failures = run_all([run for run, _, _ in runs], options.jobs)
    found = results(runs)
    if not found:
        sys.exit(f"No run in {out} is finished: there is nothing to put into a table.")
    write_tables(found, options.experiment, options.tier, out)
    done = [str(run.folder) for run, _, _ in runs if finished(run)]
    study.cliffsteer("compare", f"runs=[{','.join(done)}]", f"out={out / 'comparison'}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
