"""Find the buoyancy of a smoke plume from what is seen of it, by gradients through a hybrid of solver and surrogate.

    python examples/inverse_problem.py runs/smoke --steps 6

A hidden buoyancy makes the observation: the density of smoke after some steps of the solver. Starting from no
buoyancy at all, the loss ⟨(s − s_seen)²⟩ is driven down by L-BFGS through the hybrid, one frame of the solver and one
of the surrogate in turns, with checkpointing, so that memory does not grow with what happens inside the steps. Without
a folder the solver runs alone. The same loop finds an initial state: let that require the gradient instead.
"""

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor

from cliffsteer import Stepper, Surrogate
from cliffsteer.coupling import Alternate, checkpointed_rollout
from cliffsteer.solvers import Solver, create

HIDDEN = (0.15, 0.3)


def find_buoyancy(stepper: Stepper, start: Tensor, seen: Tensor, steps: int, iterations: int = 20) -> Tensor:
    """The buoyancy with which a stepper comes closest to the density that was seen.

    Args:
        stepper: a differentiable Stepper of smoke.
        start: initial frames, shape (batch, time, blade, *grid).
        seen: density after ``steps`` frames, shape (batch, *grid).
        steps: frames between the two.
        iterations: of L-BFGS.

    Returns:
        Shape (component,), in m/s².
    """
    buoyancy = torch.zeros(stepper.grid.dim, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([buoyancy], max_iter=iterations, line_search_fn="strong_wolfe")
    place = stepper.spec.slots["density"].start

    def loss() -> Tensor:
        optimizer.zero_grad()
        frames = checkpointed_rollout(stepper, start, steps, {"buoyancy": buoyancy})
        value = (frames[:, -1, place] - seen).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    return buoyancy.detach()


def observe(solver: Solver, steps: int, before: int, seed: int) -> tuple[Tensor, Tensor]:
    """Some frames of the hidden truth, and the density after further steps."""
    state = solver.initial([seed])
    truth = {**state.parameters, "buoyancy": torch.tensor([HIDDEN], dtype=torch.float64)}
    start = solver.observe(state)
    frames = torch.cat([start, checkpointed_rollout(solver, start, before + steps, truth)], 1)
    return frames[:, 1 : before + 1], frames[:, -1, solver.spec.slots["density"].start]


def main(arguments: list[str] | None = None) -> None:
    """Run the search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a surrogate's or a run's folder")
    parser.add_argument("--steps", type=int, default=6, help="frames between start and observation")
    parser.add_argument("--iterations", type=int, default=20, help="of L-BFGS")
    parser.add_argument("--resolution", type=int, default=32, help="cells a side, without a surrogate")
    parser.add_argument("--seed", type=int, default=0, help="of the initial smoke")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    solver, stepper, before = create("smoke", resolution=options.resolution), None, 1
    if options.folder is not None:
        run = options.folder / "surrogate"
        surrogate = Surrogate.from_pretrained(run if run.is_dir() else options.folder).double()
        grid = surrogate.grid
        solver = create("smoke", resolution=grid.shape[0], size=grid.extent[0], dt=surrogate.dt)
        stepper, before = Alternate(solver, surrogate, 1, 1), surrogate.history
    start, seen = observe(solver, options.steps, before, options.seed)
    for label, tried in {"solver": solver, "hybrid": stepper}.items():
        if tried is not None:
            found = find_buoyancy(tried, start, seen, options.steps, options.iterations).tolist()
            error = sum((a - b) ** 2 for a, b in zip(found, HIDDEN, strict=True)) ** 0.5
            logging.info("%s: buoyancy (%.4f, %.4f) m/s^2, off by %.2g", label, *found, error)


if __name__ == "__main__":
    main()
