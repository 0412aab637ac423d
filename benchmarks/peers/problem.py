"""What a problem is: rungs of ours and of others, to a measured error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Rung:
    """A solution of a problem with one number of steps, on one grid.

    Args:
        runner: who solves it.
        grid: its size, in words.
        steps: how many.
        solve: from initial data that are ready to the solution.
        error: of such a solution, relative to the reference.
        batch: trajectories that are solved together.
    """

    runner: str
    grid: str
    steps: int
    solve: Callable[[], Any]
    error: Callable[[Any], float]
    batch: int = 1


@dataclass
class Problem:
    """What is to be solved to which error, by rungs of ours (which come first) and of others.

    Args:
        name: in words.
        target: relative error to compare the costs at.
        rungs: of all runners, made when they are asked for.
        missing: packages that are not installed.
    """

    name: str
    target: float
    rungs: Iterator[Rung]
    missing: tuple[str, ...] = ()


def relative(found: Any, exact: Any) -> float:
    """Relative error in the root mean square."""
    a, b = (torch.as_tensor(np.array(x) if not isinstance(x, Tensor) else x) for x in (found, exact))
    return float((a - b).norm() / b.norm())
