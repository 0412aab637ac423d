"""Installed as cliffsteer.solvers."""

if __name__ != "cliffsteer.solvers":
    raise ImportError("this folder installs as `cliffsteer.solvers`: import that name.")

from cliffsteer.solvers.base import Solver, State, UnstableError
from cliffsteer.solvers.registry import available, create, register

__all__ = ["Solver", "State", "UnstableError", "available", "create", "register"]
