"""``cliffsteer tradeoff``: error against wall-clock time of the solver, a run and its couplings, measured together."""

from __future__ import annotations

import platform
import sys
from typing import Any

import torch
from omegaconf import DictConfig

from cliffsteer import solvers
from cliffsteer.commands.couplings import COUPLINGS, create_coupling
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import load_surrogate, open_split
from cliffsteer.coupling import CoarseToFine, Correct, Repeated
from cliffsteer.coupling.tradeoff import Problem, verdict, with_speedups
from cliffsteer.coupling.tradeoff_page import write_tradeoff
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.projection import DivergenceFree
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Stepper
from cliffsteer.suggestions import suggestion
from cliffsteer.surrogate import Surrogate

NATIVE = {"smoke_phiflow": ("smoke", ("tolerance",))}
"""Solvers that stand for a faster one of the same equations, and the options that it lacks."""
FURTHER = ("coarse_to_fine", "correct")


def run(config: DictConfig) -> None:
    """Write tradeoff.json, tradeoff.csv and tradeoff.html, and a table to stdout.

    Raises:
        UsageError: an unknown coupling, what it needs is missing, or a number out of its range.
    """
    for name in ("steps", "trajectories", "repeats"):
        if config[name] < 1:
            raise UsageError(f"`{name}` (={config[name]}) must be at least 1.")
    for name in config.couplings:
        if name not in (*COUPLINGS, *FURTHER):
            known = (*COUPLINGS, *FURTHER)
            hint = suggestion(name, known) or ";"
            raise UsageError(f"`couplings` (={name!r}) is unknown{hint} couplings: {', '.join(known)}.")
    if "correct" in config.couplings and config.correction is None:
        raise UsageError("`correction` is missing: the coupling 'correct' needs the folder of a trained correction.")
    surrogate = load_surrogate(config.run, config.device)
    trajectories = open_split(surrogate, config.root, config.split)
    cells = surrogate.grid.shape[0]
    resolutions = list(config.resolutions or [cells // 2, cells])
    finest = config.reference or 2 * max(*resolutions, cells)
    if finest <= max(resolutions):
        raise UsageError(f"`reference` (={finest}) must be finer than all `resolutions` ({resolutions}).")
    steppers = {name: _coupling(name, surrogate, trajectories, config) for name in config.couplings}
    before = max([surrogate.history, *(stepper.history for stepper in steppers.values())])
    problem = Problem(
        _solver(trajectories, finest),
        surrogate.grid,
        trajectories.seeds[: config.trajectories],
        trajectories.manifest.recipe.every,
        before,
        config.steps,
        config.repeats,
    )
    points = [problem.solver(_solver(trajectories, n), f"solver, {n} cells") for n in sorted(resolutions)]
    for name, stepper in steppers.items():
        points.append(problem.stepper(stepper, name, "surrogate" if name == "replace" else "coupling"))
    points = with_speedups(points)
    page = write_tradeoff(output_folder(config), points, _facts(config, problem), f"Error and cost: {config.run}")
    for p in points:
        gain = "" if p.speedup is None else f"  {p.speedup:.3g} x the solver at its error"
        sys.stdout.write(f"  {p.label:24} error {p.error:.4g}  {p.seconds * 1e3:10.4g} ms{gain}\n")
    sys.stdout.write(f"{verdict(points)}\nAll of it: {page}\n")


def _solver(trajectories: TrajectoryDataset, resolution: int) -> Solver:
    """The native solver of a dataset's equations at another resolution."""
    recipe = trajectories.manifest.recipe
    name, dropped = NATIVE.get(recipe.solver, (recipe.solver, ()))
    options = {key: value for key, value in recipe.options.items() if key not in dropped}
    return solvers.create(name, **{**options, "resolution": int(resolution)})


def _coupling(name: str, surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> Stepper:
    every = trajectories.manifest.recipe.every

    def stepping(resolution: int) -> Stepper:
        solver = _solver(trajectories, resolution)
        return solver if every == 1 else Repeated(solver, every)

    if name == "coarse_to_fine":
        fine = stepping(config.fine or 2 * surrogate.grid.shape[0])
        law = [DivergenceFree(fine.spec, fine.grid)] if "velocity" in fine.spec.slots and _is_closed(fine) else []
        return CoarseToFine(fine, surrogate, config.surrogate_steps, config.solver_steps, law)
    if name == "correct":
        correction = load_surrogate(config.correction, config.device)
        return Correct(stepping(correction.grid.shape[0]), correction)
    return create_coupling(name, surrogate, trajectories, config, "couplings")


def _is_closed(stepper: Stepper) -> bool:
    return not any(side == "open" for sides in stepper.grid.boundary for side in sides)


def _facts(config: DictConfig, problem: Problem) -> dict[str, Any]:
    return {
        "reference": f"{problem.reference.name} with {' x '.join(map(str, problem.reference.grid.shape))} cells",
        "compared on": f"{' x '.join(map(str, problem.common.shape))} cells",
        "steps": problem.steps,
        "dt": problem.reference.dt * problem.every,
        "trajectories in the batch": len(problem.truth),
        "device": config.device,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
