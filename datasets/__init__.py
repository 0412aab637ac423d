"""Installed as cliffsteer.datasets."""

if __name__ != "cliffsteer.datasets":
    raise ImportError("this folder installs as `cliffsteer.datasets`: import that name.")
