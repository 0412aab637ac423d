"""The wave equation: beside exponax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cliffsteer.solvers import create
from peers.packages import exponax_and_jax
from peers.problem import Problem, Rung, relative


def wave(tiny: bool, have: dict[str, bool], batch: int = 4) -> Problem:
    """The wave equation in 2D over 10 steps; both solvers are exact."""
    n, steps = (16, 2) if tiny else (128, 10)
    solver = create("wave", resolution=n, dt=0.05)
    start = solver.initial(range(batch))
    exact = create("wave", resolution=n, dt=0.05 * steps).advance(start).values["phi"]

    def ours() -> Tensor:
        state = start
        for _ in range(steps):
            state = solver.advance(state)
        return state.values["phi"]

    def rungs() -> Iterator[Rung]:
        yield Rung("wave", f"{n}×{n}", steps, ours, lambda phi: relative(phi, exact), batch)
        if have["exponax"]:
            exponax, jax = exponax_and_jax()
            stepper = exponax.stepper.Wave(2, 1.0, n, 0.05, speed_of_sound=1.0)
            run = jax.jit(jax.vmap(exponax.repeat(stepper, steps)))
            x = jax.numpy.asarray(torch.stack([start.values["phi"], start.values["pi"]], 1).numpy())

            def solve() -> np.ndarray:
                return np.asarray(run(x).block_until_ready())[:, 0]

            yield Rung("exponax (Wave)", f"{n}×{n}", steps, solve, lambda phi: relative(phi, exact), batch)

    return Problem("wave", 1e-10, rungs())
