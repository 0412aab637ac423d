"""``cliffsteer tradeoff``: error against wall-clock time of the solver, a run and its couplings, measured together."""

from __future__ import annotations

import contextlib
import logging
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from cliffsteer.commands.couplings import check_names, create_coupling, is_correction, stable
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import load_surrogate, open_split, require_fit
from cliffsteer.coupling import Correct, Guarded, Predictor
from cliffsteer.coupling.tradeoff import Candidate, Problem
from cliffsteer.coupling.tradeoff_page import write_tradeoff
from cliffsteer.coupling.tradeoff_verdict import Gap, gaps_closed, verdict, with_speedups
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.solvers import Solver, UnstableError
from cliffsteer.stepper import Stepper
from cliffsteer.surrogate import Surrogate

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
    require_fit(trajectories, "root", surrogate, config.run, same_cells=not is_correction(surrogate))
    steppers = {name: create_coupling(name, surrogate, trajectories, config, "couplings") for name in config.couplings}
    resolutions = _resolutions(config, surrogate, steppers)
    problem = _problem(config, surrogate, trajectories, steppers, resolutions)
    solvers = [_solver(problem, trajectories, n) for n in resolutions]
    candidates = [candidate for candidate, _ in solvers]
    peers: dict[str, Stepper] = {}
    with _unlogged():
        for name, stepper in steppers.items():
            candidates.append(problem.stepper(stepper, name, "surrogate" if name == "replace" else "coupling"))
            if isinstance(stepper, Correct):
                alone = getattr(stepper.solver, "stepper", stepper.solver)  # without the loop over steps of a frame
                candidates.append(problem.solver(alone, UNCORRECTED))
            if isinstance(stepper, Predictor):
                peers["PhiFlow alone"] = Predictor(stepper.solver, None)
                candidates.append(problem.stepper(peers["PhiFlow alone"], "PhiFlow alone", "peer"))
        points = with_speedups(problem.measure(candidates))
    told = {key: text for name, stepper in (steppers | peers).items() for key, text in _told(name, stepper).items()}
    gaps = gaps_closed(points, UNCORRECTED, "correct") if "correct" in steppers else []
    if "correct" in steppers:
        told["correct: gap closed"] = _gap(gaps, 2 * steppers["correct"].grid.shape[0])
    facts = _facts(config, problem, surrogate, [solver for _, solver in solvers], candidates) | told
    page = write_tradeoff(output_folder(config), points, facts, f"Error and cost: {config.run}", gaps)
    for p in points:
        gain = "" if p.speedup is None else f"  {p.speedup:.3g} x the solver at its error"
        sys.stdout.write(f"  {p.label:24} error {p.error:.4g}  {p.seconds * 1e3:10.4g} ms{gain}\n")
    for key, text in told.items():
        sys.stdout.write(f"{key}: {text}\n")
    sys.stdout.write(f"{verdict(points)}\nAll of it: {page}\n")


def _resolutions(config: DictConfig, surrogate: Surrogate, steppers: Mapping[str, Stepper]) -> list[int]:
    """Cells of the solvers, ascending; for a correction one of twice its cells is among them by default."""
    cells = surrogate.grid.shape[0]
    chosen = {cells // 2, cells} | ({2 * steppers["correct"].grid.shape[0]} if "correct" in steppers else set())
    return sorted(set(config.resolutions or chosen))


def _problem(
    config: DictConfig,
    surrogate: Surrogate,
    trajectories: TrajectoryDataset,
    steppers: Mapping[str, Stepper],
    resolutions: Sequence[int],
) -> Problem:
    """What all have to solve; by default its reference has twice the cells of solvers, run and dataset."""
    recipe, cells = trajectories.manifest.recipe, surrogate.grid.shape[0]
    finest = config.reference or 2 * max(*resolutions, cells, trajectories.grid.shape[0])
    if finest <= max(resolutions):
        raise UsageError(f"`reference` (={finest}) must be finer than all `resolutions` ({list(resolutions)}).")
    before = max([surrogate.history, *(stepper.history for stepper in steppers.values())])
    seeds, device = trajectories.seeds[: config.trajectories], surrogate.occupied.device

    def begin(reference: Solver) -> Problem:
        counts = (recipe.every, before, config.steps, config.repeats, recipe.skip)
        return Problem(reference, surrogate.grid, seeds, *counts, device)

    try:
        return stable(trajectories, finest, begin)
    except ValueError as error:
        raise UsageError(f"`reference` (={finest}): the solver cannot be run on so many cells: {error}") from error


def _solver(problem: Problem, trajectories: TrajectoryDataset, resolution: int) -> tuple[Candidate, Solver]:
    """The native solver at its best settings: with as few substeps as it is stable with."""

    def use(solver: Solver) -> tuple[Candidate, Solver]:
        candidate = problem.solver(solver, f"solver, {resolution} cells")
        if hasattr(solver, "substeps") and not candidate.is_finite:
            raise UnstableError(f"`resolutions` (={resolution}): the solver becomes NaN or infinite on the way.")
        return candidate, solver

    return stable(trajectories, resolution, use)


def _facts(
    config: DictConfig,
    problem: Problem,
    surrogate: Surrogate,
    solvers: Sequence[Solver],
    candidates: Sequence[Candidate],
) -> dict[str, Any]:
    substeps = [
        f"{solver.substeps} with {solver.grid.shape[0]} cells" for solver in solvers if hasattr(solver, "substeps")
    ]
    devices = sorted({str(candidate.device) for candidate in candidates if candidate.kind == "solver"})
    return {
        "reference": f"{problem.reference.name} with {' x '.join(map(str, problem.reference.grid.shape))} cells",
        "compared on": f"{' x '.join(map(str, problem.common.shape))} cells",
        "steps": problem.steps,
        "dt": problem.dt,
        "trajectories in the batch": len(problem.truth),
        "timed": f"in {problem.repeats} rounds of all, seconds for a frame: median over rounds, and quartiles",
        "precision": f"solvers float64, surrogate {str(surrogate.dtype).removeprefix('torch.')}",
        **({"substeps of the solvers": ", ".join(substeps)} if substeps else {}),
        "device": str(problem.device),
        "solvers ran on": ", ".join(devices),
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


def _gap(gaps: Sequence[Gap], twice: int) -> str:
    """A sentence on the gap to the solver of twice the cells."""
    found = [gap for gap in gaps if gap.twice]
    if not found:
        return f"not known, no solver of twice the cells was measured: add {twice} to `resolutions`"
    gap = found[0]
    if gap.share is None:
        return f"there is none, {gap.finer!r} is no better than the uncorrected solver"
    return f"{gap.share:.0%} of that between its solver and {gap.finer!r}, of twice the cells"
