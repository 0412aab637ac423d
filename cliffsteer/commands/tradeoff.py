"""``cliffsteer tradeoff``: error against wall-clock time of the solver, a run and its couplings, measured together."""

from __future__ import annotations

import contextlib
import logging
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from cliffsteer.commands.couplings import check_names, create_coupling, native_solver
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import load_surrogate, open_split
from cliffsteer.coupling import Correct, Guarded, Predictor
from cliffsteer.coupling.tradeoff import Point, Problem, gap_closed, verdict, with_speedups
from cliffsteer.coupling.tradeoff_page import write_tradeoff
from cliffsteer.stepper import Stepper

UNCORRECTED = "solver of correct, alone"


def run(config: DictConfig) -> None:
    """Write tradeoff.json, tradeoff.csv and tradeoff.html, and a table to stdout.

    Raises:
        UsageError: an unknown coupling, what it needs is missing, or a number out of its range.
    """
    for name in ("steps", "trajectories", "repeats"):
        if config[name] < 1:
            raise UsageError(f"`{name}` (={config[name]}) must be at least 1.")
    check_names(config.couplings, "couplings")
    surrogate = load_surrogate(config.run, config.device)
    trajectories = open_split(surrogate, config.root, config.split)
    cells = surrogate.grid.shape[0]
    resolutions = list(config.resolutions or [cells // 2, cells])
    finest = config.reference or 2 * max(*resolutions, cells)
    if finest <= max(resolutions):
        raise UsageError(f"`reference` (={finest}) must be finer than all `resolutions` ({resolutions}).")
    steppers = {name: create_coupling(name, surrogate, trajectories, config, "couplings") for name in config.couplings}
    before = max([surrogate.history, *(stepper.history for stepper in steppers.values())])
    problem = Problem(
        native_solver(trajectories, finest),
        surrogate.grid,
        trajectories.seeds[: config.trajectories],
        trajectories.manifest.recipe.every,
        before,
        config.steps,
        config.repeats,
        trajectories.manifest.recipe.skip,
    )
    facts = _facts(config, problem)
    points = [problem.solver(native_solver(trajectories, n), f"solver, {n} cells") for n in sorted(resolutions)]
    for name, stepper in steppers.items():
        with _unlogged():
            points.append(problem.stepper(stepper, name, "surrogate" if name == "replace" else "coupling"))
        facts |= _told(name, stepper)
        if isinstance(stepper, Correct):
            solver = getattr(stepper.solver, "stepper", stepper.solver)  # without the loop over its steps of a frame
            points.append(problem.solver(solver, UNCORRECTED))
        if isinstance(stepper, Predictor):
            alone = Predictor(stepper.solver, None)
            points.append(problem.stepper(alone, "PhiFlow alone", "peer"))
            facts |= _told("PhiFlow alone", alone)
    points = with_speedups(points)
    if "correct" in steppers:
        facts |= _gap(points)
    page = write_tradeoff(output_folder(config), points, facts, f"Error and cost: {config.run}")
    for p in points:
        gain = "" if p.speedup is None else f"  {p.speedup:.3g} x the solver at its error"
        sys.stdout.write(f"  {p.label:24} error {p.error:.4g}  {p.seconds * 1e3:10.4g} ms{gain}\n")
    for key, text in facts.items():
        if key not in _facts(config, problem):
            sys.stdout.write(f"{key}: {text}\n")
    sys.stdout.write(f"{verdict(points)}\nAll of it: {page}\n")


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


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep interventions of guards from the terminal, where each would stand once for every repetition."""
    logger = logging.getLogger(Guarded.__module__)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _told(name: str, stepper: Stepper) -> dict[str, str]:
    """What a coupling counted on the way."""
    if isinstance(stepper, Predictor):
        return {f"{name}: iterations of the pressure solve, median": f"{statistics.median(stepper.iterations):g}"}
    if isinstance(stepper, Guarded):
        parts = ("surrogate", "rejected", "handed back")
        return {f"{name}: frames": ", ".join(f"{part} {stepper.counts[part]}" for part in parts)}
    return {}


def _gap(points: Sequence[Point]) -> dict[str, str]:
    found = gap_closed(points, UNCORRECTED, "correct")
    if found is None:
        return {"correct: gap closed": "not known, no finer solver is better than the uncorrected one"}
    share, finer = found
    return {"correct: gap closed": f"{share:.0%} of that between its solver and {finer.label!r}"}
