"""Versions of the software that decides the bytes of a dataset: cliffsteer, torch, and what a solver computes with."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, entry_points, version

import torch

import cliffsteer
from cliffsteer.solvers.base import Solver
from cliffsteer.solvers.registry import GROUP


def packages(solver: Solver | None = None) -> dict[str, str]:
    """Versions of torch, of what a solver computes with, and of what one of another package is installed from."""
    found = {"torch": str(torch.__version__)}
    if solver is None:
        return found
    for name in solver.packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    if type(solver).__module__.partition(".")[0] != "cliffsteer":
        points = entry_points(group=GROUP, name=solver.name)
        found |= {point.dist.name: point.dist.version for point in points if point.dist}
    return found


def check_versions(expected: Mapping[str, str], solver: Solver) -> None:
    """Refuse to work for a process that has other versions.

    Args:
        expected: of cliffsteer and of ``packages``, there.
        solver: as it was made here.

    Raises:
        ValueError: this process has others.
    """
    found = {"cliffsteer": cliffsteer.__version__, **packages(solver)}
    if found != expected:
        raise ValueError(
            f"The worker on {socket.gethostname()} has {_listed(found)}, but this process has {_listed(expected)}:"
            " install the same on all machines, as the bytes depend on it."
        )


def _listed(found: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {number}" for name, number in found.items())
