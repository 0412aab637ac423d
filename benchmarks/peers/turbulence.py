"""Decaying turbulence: beside exponax and torch-cfd."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliffsteer.solvers import Solver, State, create
from peers.packages import exponax_and_jax
from peers.problem import Problem, Rung, relative


def turbulence(tiny: bool, have: dict[str, bool], batch: int = 4) -> Problem:
    """Decaying turbulence in 2D for 1 s; ours carries a passive scalar besides, the others vorticity alone."""
    n, time, viscosity = (32, 0.5, 0.02) if tiny else (128, 1.0, 0.002)
    ladder = (12, 16) if tiny else (28, 40, 56, 80, 112)
    options = {"resolution": n, "viscosity": viscosity, "diffusivity": viscosity, "scale": 2.0, "dt": time}
    solver = create("turbulence", **options, substeps=4 * ladder[-1])
    start = solver.initial(range(batch))
    before, exact = (_vorticity(solver, state) for state in (start, solver.advance(start)))

    def rungs() -> Iterator[Rung]:
        grid = f"{n}×{n}"
        for steps in ladder:
            ours = create("turbulence", **options, substeps=steps)
            yield Rung(
                "turbulence (ETDRK4)", grid, steps, lambda s=ours: s.advance(start),
                lambda state: relative(_vorticity(solver, state), exact), batch,
            )  # fmt: skip
        for peer, make in (("exponax", _exponax_flow), ("torch_cfd", _torch_cfd_flow)):
            if have[peer]:
                for runner, steps, solve in make(n, time, viscosity, before, ladder):
                    yield Rung(runner, grid, steps, solve, lambda w: relative(w, exact), batch)

    return Problem("turbulence", 1e-5, rungs())


def _vorticity(solver: Solver, state: State) -> Tensor:
    c, ik = solver.spectral.forward(state.values["velocity"]), solver.spectral.derivatives()
    return solver.spectral.inverse(ik[0] * c[:, 1] - ik[1] * c[:, 0])


def _exponax_flow(
    n: int, time: float, viscosity: float, start: Tensor, ladder: Sequence[int]
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Exponax's steppers of the vorticity, whose sign is the other one there."""
    exponax, jax = exponax_and_jax()
    w = jax.numpy.asarray(-start[:, None].numpy())
    for order in (2, 4):
        for steps in ladder if order == 4 else [4 * steps for steps in ladder]:
            stepper = exponax.stepper.NavierStokesVorticity(
                2, 2 * math.pi, n, time / steps, diffusivity=viscosity, order=order
            )
            run = jax.jit(jax.vmap(exponax.repeat(stepper, steps)))
            yield f"exponax (ETDRK{order})", steps, lambda run=run: -np.asarray(run(w).block_until_ready())[:, 0]


def _torch_cfd_flow(
    n: int, time: float, viscosity: float, start: Tensor, ladder: Sequence[int]
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """torch-cfd's pseudo-spectral vorticity, with its two best steppers."""
    from torch_cfd import grids, spectral

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # its grids and filters have the default type
    try:
        grid = grids.Grid((n, n), domain=((0, 2 * math.pi),) * 2)
        steppers = {
            "torch-cfd (RK4 Crank-Nicolson)": (spectral.RK4CrankNicolsonStepper(), 1),
            "torch-cfd (RK2 Crank-Nicolson)": (spectral.IMEXStepper(order=2), 4),
        }
        equations = {
            runner: spectral.NavierStokes2DSpectral(viscosity=viscosity, grid=grid, smooth=True, step_fn=stepper)
            for runner, (stepper, _) in steppers.items()
        }
    finally:
        torch.set_default_dtype(default)
    w = torch.fft.rfft2(start)
    for runner, (_, factor) in steppers.items():
        for steps in (factor * steps for steps in ladder):

            def solve(equation: Any = equations[runner], steps: int = steps) -> Tensor:
                with torch.no_grad():
                    return torch.fft.irfft2(equation(w, time / steps, steps)[0])

            yield runner, steps, solve
