"""The surrogates to release: of each experiment the complete CS-ResNet of tier "small", published with its model card.

    python benchmarks/release.py [ns64 maxwell3d ...] [--out runs/release] [--studies runs/studies]

Simulates, trains and evaluates what is missing, in the folders of ``paper.py``, where the runs of the tables are found
again; saves weights, fields, grid, normalisation, training configuration, metrics and card into ``OUT/NAME``; and
measures every number of the card anew (`cliffsteer verify`). A surrogate is about 0.2 MB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paper
import study
from study_runs import run_all

NETWORK = "CS-ResNet, complete"
TIER = "small"


def released() -> list[str]:
    """Names of the experiments that have the network."""
    return [name for name in paper.experiments() if NETWORK in read(name)["networks"]]


def read(name: str) -> dict[str, Any]:
    """An experiment's study."""
    return study.read_study(f"{paper.PREFIX}{name}", TIER)


def release(name: str, out: Path, studies: Path) -> None:
    """Make one surrogate, from its data to the check of its card.

    Raises:
        SystemExit: a step failed; it has said why.
    """
    settings, folder = read(name), studies / f"{paper.PREFIX}{name}-{TIER}"
    settings |= {"networks": {NETWORK: settings["networks"][NETWORK]}}
    settings |= {"sizes": settings["sizes"][-1:], "seeds": settings["seeds"][:1]}
    ((run, _, _),) = paper.planned(settings, folder)
    paper.make_data(settings, folder)
    if failures := run_all([run], jobs=1):
        sys.exit("\n".join(failures))
    study.cliffsteer("publish", f"run={run.folder}", f"out={out / name}")
    study.cliffsteer("verify", f"run={out / name}", f"root={folder / 'data'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """One experiment after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="NAME", help=f"of {', '.join(released())}; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/release"))
    parser.add_argument("--studies", type=Path, default=Path("runs/studies"))
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.experiments) - set(released())):
        parser.error(f"there is no surrogate {unknown[0]!r} to release: choose from {', '.join(released())}")
    for name in options.experiments or released():
        release(name, options.out, options.studies)


if __name__ == "__main__":
    main()
