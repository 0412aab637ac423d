"""Installed as cliffsteer.solvers."""

if __name__ != "cliffsteer.solvers":
    raise ImportError("this folder installs as `cliffsteer.solvers`: import that name.")
