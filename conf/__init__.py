"""Installed as cliffsteer.conf."""

if __name__ != "cliffsteer.conf":
    raise ImportError("this folder installs as `cliffsteer.conf`: import that name.")
