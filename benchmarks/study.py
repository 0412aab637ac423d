"""A study: networks × training-set sizes × seeds on one dataset, trained, evaluated and put into one table.

    python benchmarks/study.py turbulence [--out runs/studies/turbulence] [--tier small] [--jobs 2] [key=value ...]

A study is a file of `benchmarks/studies`; its keys:

    data       overrides of `cliffsteer generate`
    train      overrides of `cliffsteer train` for every network
    also       more of them
    networks   for each network, by the name in the tables, further overrides
    sizes      numbers of training trajectories; null for all
    seeds      seeds of weights and of the order of the data
    seconds    train each network for about this time, as many steps as it then takes; null for `trainer.steps`
    evaluate   overrides of `cliffsteer evaluate`
    tiers      by name, keys that take the place of those above

Runs that are finished are kept and a training that was interrupted goes on, so the same command resumes. ``--jobs``
trainings run at once, each on one thread when there are several, for times that can be compared. Further arguments go
to every `cliffsteer train`. The steps that fit into ``seconds`` are measured once for each network, alone, on the
threads that its training will have, and kept in ``OUT/steps-SECONDSs.json``. At the end `cliffsteer compare` writes
the tables and figures into ``OUT/comparison``.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from study_runs import Run, finished, run_all

STUDIES = Path(__file__).parent / "studies"
PROBES = 20, 120
"""Steps of the two short trainings whose difference in time measures a step."""


def read_study(name: str, tier: str | None = None) -> dict[str, Any]:
    """A study by its name, with the keys of a tier in place of its own.

    Raises:
        SystemExit: no such study or tier.
    """
    path = STUDIES / f"{name}.yaml"
    if not path.is_file():
        sys.exit(
            f"There is no study {name!r}: choose from {', '.join(sorted(p.stem for p in STUDIES.glob('*.yaml')))}."
        )
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    tiers = study.pop("tiers", {})
    if tier is not None and tier not in tiers:
        sys.exit(f"Study {name!r} has no tier {tier!r}: choose from {', '.join(tiers) or 'none'}.")
    return study | (tiers[tier] if tier else {})


def runs(study: dict[str, Any], out: Path) -> Iterator[Run]:
    """All runs of a study: seed by seed, so that what is there after a while is a table."""
    sizes = study.get("sizes") or [None]
    for seed, size, name in itertools.product(study["seeds"], sizes, study["networks"]):
        folder = out / f"{label(name)}{f'-n{size}' if size else ''}-seed{seed}"
        train = [*training(study, name, out), f"name={folder.name}", f"out={folder}", f"trainer.seed={seed}"]
        train += [f"data.trajectories={size}"] if size else []
        yield Run(folder, tuple(train), tuple(study.get("evaluate", ())))


def training(study: dict[str, Any], name: str, out: Path) -> list[str]:
    """Overrides of `cliffsteer train` for one network, whatever the size and the seed."""
    words = [*study["train"], *study.get("also", ()), *study["networks"][name], *study.get("last", ())]
    return [*words, f"data.root={out / 'data'}"]


def label(name: str) -> str:
    """The name of a network as part of the name of a folder."""
    return re.sub(r"[^\w.]+", "-", name).strip("-").lower()


def steps_within(study: dict[str, Any], out: Path, threads: int | None) -> dict[str, int]:
    """For each network, how many optimiser steps fit into the study's seconds: measured once, kept in a file."""
    path = out / f"steps-{study['seconds']:g}s.json"
    steps = json.loads(path.read_text()) if path.is_file() else {}
    for name in study["networks"]:
        if name in steps:
            continue
        seconds = [
            probe(out / "probes" / f"{label(name)}-{count}", training(study, name, out), count, threads)
            for count in PROBES
        ]
        steps[name] = max(1, round(study["seconds"] * (PROBES[1] - PROBES[0]) / (seconds[1] - seconds[0])))
        print(f"{name}: {steps[name]} steps in about {study['seconds']} s", flush=True)
        path.write_text(json.dumps(steps, indent=2))
    return steps


def probe(folder: Path, train: Sequence[str], steps: int, threads: int | None) -> float:
    """Seconds that a training of so many steps takes, with its start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    only = [f"trainer.steps={steps}", f"trainer.validate_every={steps}", f"out={folder}"]
    start = time.perf_counter()
    cliffsteer("train", *train, *only, threads=threads, log=folder / "log.txt")
    return time.perf_counter() - start


def cliffsteer(*arguments: str, threads: int | None = None, log: Path | None = None) -> None:
    """Call the command line in a process of its own."""
    code = f"import sys; from cliffsteer.cli import main; sys.exit(main({list(arguments)!r}))"
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with log.open("a", encoding="utf-8") if log else contextlib.nullcontext() as file:
        done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=file, stderr=file)
    if done.returncode:
        sys.exit(f"`cliffsteer {arguments[0]}` failed" + (f": {log} tells why." if log else "."))


def main() -> None:
    """Generate, train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tier")
    parser.add_argument("--jobs", type=int, default=1)
    options, overrides = parser.parse_known_args()
    if options.jobs < 1:
        parser.error(f"--jobs (={options.jobs}) must be at least 1.")
    study = read_study(options.study, options.tier) | {"last": overrides}
    out = options.out or Path("runs/studies") / "-".join(filter(None, (options.study, options.tier)))
    cliffsteer("generate", *study["data"], f"out={out / 'data'}")
    threads = 1 if options.jobs > 1 else None
    if study.get("seconds"):
        steps = steps_within(study, out, threads)
        for name, own in study["networks"].items():
            study["networks"][name] = [*own, f"trainer.steps={steps[name]}"]
    planned = list(runs(study, out))
    failures = run_all(planned, options.jobs)
    done = [str(run.folder) for run in planned if finished(run)]
    if done:
        cliffsteer("compare", f"runs=[{','.join(done)}]", f"out={out / 'comparison'}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
