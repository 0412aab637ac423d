"""The problems of benchmarks/solvers.py: each solved by a solver of this package and by others, to a measured error."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

from peers.charges import charges
from peers.maxwell import maxwell
from peers.problem import Problem
from peers.smoke import smoke
from peers.turbulence import turbulence
from peers.wave import wave

_PROBLEMS: dict[str, tuple[Callable[..., Problem], tuple[str, ...]]] = {
    "turbulence": (turbulence, ("exponax", "torch_cfd")),
    "wave": (wave, ("exponax",)),
    "smoke": (smoke, ()),
    "maxwell": (maxwell, ("fdtd",)),
    "charges": (charges, ("pycharge",)),
}


def problems(only: str, tiny: bool) -> Iterator[Problem]:
    """The problems whose name contains ``only``; tiny ones to see that all runs."""
    for name, (make, peers) in _PROBLEMS.items():
        if only in name:
            problem = make(tiny, {peer: importlib.util.find_spec(peer) is not None for peer in peers})
            problem.missing = tuple(peer for peer in peers if not importlib.util.find_spec(peer))
            yield problem
