"""Couplings and guards of a run, as the verbs make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cliffsteer import solvers
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate, solver_of
from cliffsteer.coupling import Alternate, Guarded, load_guards
from cliffsteer.coupling.calibration import create_guard
from cliffsteer.coupling.guards import Guard
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Stepper
from cliffsteer.suggestions import suggestion
from cliffsteer.surrogate import Surrogate

FILE = "guards.json"
"""Where the guards of a run are, in its folder."""
SHORT = 1 / 64
"""Time step of the solver that measures residuals, over its own."""


def _guarded(surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> Guarded:
    guards = make_guards(load_guards(Path(config.run) / FILE), surrogate, trajectories, config.device)
    return Guarded(solver_of(trajectories), surrogate, guards, config.hand_back)


COUPLINGS: dict[str, Callable[[Surrogate, TrajectoryDataset, DictConfig], Stepper]] = {
    "replace": lambda surrogate, trajectories, config: surrogate,
    "alternate": lambda surrogate, trajectories, config: Alternate(
        solver_of(trajectories), surrogate, config.solver_steps, config.surrogate_steps
    ),
    "guarded": _guarded,
}
"""Ways to put a surrogate into the place of its solver, by name."""


def create_coupling(
    name: str, surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig, key: str = "coupling"
) -> Stepper:
    """A coupling by name; ``config`` has the keys of ``cliffsteer rollout`` that it reads.

    Raises:
        UsageError: an unknown name; ``key`` is what it was given as.
    """
    if name not in COUPLINGS:
        hint = suggestion(name, COUPLINGS) or ";"
        raise UsageError(f"`{key}` (={name!r}) is unknown{hint} couplings: {', '.join(COUPLINGS)}.")
    return COUPLINGS[name](surrogate, trajectories, config)


def make_guards(
    descriptions: Sequence[Mapping[str, Any]], surrogate: Surrogate, trajectories: TrajectoryDataset, device: str
) -> list[Guard]:
    """Guards from their descriptions, with the solver and the other runs that some of them need."""
    guards = []
    for description in descriptions:
        short = short_solver(trajectories) if description["kind"] == "residual" else None
        members = [load_surrogate(run, device) for run in description.get("runs", ())]
        guards.append(create_guard(description, surrogate, short, members))
    return guards


def short_solver(trajectories: TrajectoryDataset) -> Solver:
    """The solver of a dataset with a short time step, of one substep where it has substeps."""
    recipe = trajectories.manifest.recipe
    solver = solvers.create(recipe.solver, **recipe.options)
    options = {**recipe.options, "dt": solver.dt * SHORT}
    if hasattr(solver, "substeps"):
        options["substeps"] = 1
    return solvers.create(recipe.solver, **options)
