"""Couplings and guards of a run, as the verbs make them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from cliffsteer import solvers
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate, solver_of, surrogate_folder
from cliffsteer.coupling import Alternate, CoarseToFine, Correct, Guarded, Predictor, Repeated, load_guards
from cliffsteer.coupling.calibration import BUDGETS, create_guard
from cliffsteer.coupling.guards import Guard
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.projection import DivergenceFree
from cliffsteer.solvers.base import Solver, UnstableError
from cliffsteer.stepper import Stepper
from cliffsteer.suggestions import suggestion
from cliffsteer.surrogate import Surrogate, weights_checksum

FILE = "guards.json"
"""Where the guards of a run are, in its folder."""
NATIVE = {"smoke_phiflow": ("smoke", ("tolerance",))}
"""Solvers that stand for a faster one of the same equations, and the options that it lacks."""
ITERATIVE = {"smoke": "smoke_phiflow", "smoke_phiflow": "smoke_phiflow", "smoke_scene": "smoke_scene"}
"""Solvers whose equations one with an iterative pressure solve has as well."""
TRIES = 4
"""How many times as many substeps as the Courant number asks for are tried before a solver counts as unstable."""
SHORT = 1 / 64
"""Time step of the solver that measures residuals, over its own."""

Found = TypeVar("Found")

logger = logging.getLogger(__name__)


def _alternate(surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> Alternate:
    return Alternate(solver_of(trajectories), surrogate, config.solver_steps, config.surrogate_steps)


def _guarded(surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> Guarded:
    path = Path(config.run) / FILE
    descriptions = load_guards(path)
    steps = config.get("steps", 0)
    if any(d["kind"] in BUDGETS and d["rollout"] < steps for d in descriptions):
        logger.warning(
            "The budgets of %s are those of %d steps, and %d are to be made: they may be spent before the end;"
            " `cliffsteer calibrate run=%s steps=%d` sets them for as many.",
            *(FILE, descriptions[0]["rollout"], steps, config.run, steps),
        )
    for run in (run for d in descriptions for run in d.get("runs", ())):
        try:
            surrogate_folder(run)
        except FileNotFoundError as error:
            raise UsageError(
                f"{path} compares with the run {run}, which is not there any more: put it back, or leave it out with"
                f" `cliffsteer calibrate run={config.run}`."
            ) from error
    guards = make_guards(descriptions, surrogate, trajectories, config.device)
    return Guarded(solver_of(trajectories), surrogate, guards, config.hand_back)


def _correct(surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> Correct:
    if config.correction is not None:
        correction = load_surrogate(config.correction, config.device, "correction")
        _require_correction(correction, trajectories, config.correction)
    elif is_correction(surrogate):
        correction = surrogate
    else:
        raise UsageError(
            "`correction` is missing: the coupling 'correct' needs the folder of a correction; `cliffsteer correct`"
            " trains one."
        )
    told = (correction.training_config or {}).get("correction")
    if told is None:  # made in Python, which says nothing of its solver
        return Correct(_at(trajectories, correction.grid.shape[0]), correction)
    solver = solvers.create(told["solver"]["name"], **told["solver"]["options"])
    return Correct(with_frame_step(solver, told["every"]), correction)


def _coarse_to_fine(surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> CoarseToFine:
    cells = surrogate.grid.shape[0]
    if config.fine is not None and config.fine <= cells:
        raise UsageError(
            f"`fine` (={config.fine}) must be more than the {cells} cells a side of the run: give a finer solver, as"
            f" fine={2 * cells}."
        )
    fine = _at(trajectories, config.fine or 2 * cells)
    closed = not any(side == "open" for sides in fine.grid.boundary for side in sides)
    law = [DivergenceFree(fine.spec, fine.grid)] if "velocity" in fine.spec.slots and closed else []
    return CoarseToFine(fine, surrogate, config.surrogate_steps, config.solver_steps, law)


def _predictor(surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig) -> Predictor:
    return Predictor(iterative_solver(trajectories), surrogate)


COUPLINGS: dict[str, Callable[[Surrogate, TrajectoryDataset, DictConfig], Stepper]] = {
    "replace": lambda surrogate, trajectories, config: surrogate,
    "alternate": _alternate,
    "guarded": _guarded,
    "correct": _correct,
    "coarse_to_fine": _coarse_to_fine,
    "predictor": _predictor,
}
"""Ways to put a surrogate into the place of its solver, by name."""


def create_coupling(
    name: str, surrogate: Surrogate, trajectories: TrajectoryDataset, config: DictConfig, key: str = "coupling"
) -> Stepper:
    """A coupling by name; ``config`` has the keys of ``cliffsteer rollout`` that it reads.

    Raises:
        UsageError: an unknown name (``key`` is what it was given as), or what the coupling needs is missing.
    """
    check_names([name], key)
    if is_correction(surrogate) and name != "correct":
        raise UsageError(f"`run` (={config.run}) holds a correction of a solver, which steps with {key}=correct only.")
    return COUPLINGS[name](surrogate, trajectories, config)


def check_names(names: Sequence[str], key: str) -> None:
    """Raise a UsageError for a coupling that does not exist."""
    for name in names:
        if name not in COUPLINGS:
            hint = suggestion(name, COUPLINGS) or ";"
            raise UsageError(f"`{key}` (={name!r}) is unknown{hint} couplings: {', '.join(COUPLINGS)}.")


def is_correction(surrogate: Surrogate) -> bool:
    """Whether a surrogate is what `cliffsteer correct` trained, which takes no time by itself."""
    return "correction" in (surrogate.training_config or {})


def refuse_correction(surrogate: Surrogate, run: str | Path, key: str = "run") -> None:
    """Raise a UsageError for a correction (``key`` is what it was given as) where a surrogate has to step by itself."""
    if is_correction(surrogate):
        raise UsageError(
            f"`{key}` (={run}) holds a correction of a solver, which makes no step by itself: give a run of `cliffsteer"
            f" train`; `cliffsteer tradeoff run={run} couplings=[correct]` measures a correction."
        )


def native_solver(trajectories: TrajectoryDataset, resolution: int, options: Mapping[str, Any] | None = None) -> Solver:
    """The native solver of a dataset's equations at another resolution, and with other options where given."""
    name, found = native_recipe(trajectories, resolution, options)
    return solvers.create(name, **found)


def native_recipe(
    trajectories: TrajectoryDataset, resolution: int, options: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Name and options of `native_solver`."""
    recipe = trajectories.manifest.recipe
    name, dropped = NATIVE.get(recipe.solver, (recipe.solver, ()))
    kept = {key: value for key, value in recipe.options.items() if key not in dropped}
    return name, {**kept, "resolution": int(resolution), **(options or {})}


def scaled_substeps(trajectories: TrajectoryDataset, resolution: int) -> int | None:
    """Substeps with the Courant number of a dataset's solver at another resolution; None where it has no substeps."""
    own = trajectories.grid.shape[-1]
    substeps = getattr(native_solver(trajectories, own), "substeps", None)
    return None if substeps is None else max(1, math.ceil(substeps * resolution / own - 1e-9))


def stable(trajectories: TrajectoryDataset, resolution: int, use: Callable[[Solver], Found]) -> Found:
    """What ``use`` makes of the native solver at another resolution, with the fewest substeps with which it is stable.

    The first try has the Courant number of the dataset, each further one a substep more.

    Args:
        trajectories: the dataset.
        resolution: cells a side.
        use: runs the solver; raises an UnstableError where it is unstable.

    Raises:
        UnstableError: that of the last try.
    """
    least = scaled_substeps(trajectories, resolution)
    if least is None:
        return use(native_solver(trajectories, resolution))
    for substeps in range(least, TRIES * least):
        try:
            return use(native_solver(trajectories, resolution, {"substeps": substeps}))
        except UnstableError:
            continue
    return use(native_solver(trajectories, resolution, {"substeps": TRIES * least}))


def iterative_solver(trajectories: TrajectoryDataset) -> Solver:
    """PhiFlow's solver of a dataset's equations, whose pressure solve is iterative.

    Raises:
        UsageError: there is none, or frames are several of its steps apart.
    """
    recipe = trajectories.manifest.recipe
    if recipe.solver not in ITERATIVE:
        raise UsageError(
            f"The coupling 'predictor' starts an iterative pressure solve, which {recipe.solver!r} has none of: it goes"
            f" with datasets of {', '.join(ITERATIVE)}."
        )
    if recipe.every != 1:
        raise UsageError(
            f"The coupling 'predictor' makes a frame in one step, but the dataset has every={recipe.every}."
        )
    return solvers.create(ITERATIVE[recipe.solver], **recipe.options)


def with_frame_step(solver: Solver, every: int) -> Stepper:
    """A solver with the time step of frames that are ``every`` of its steps apart."""
    return solver if every == 1 else Repeated(solver, every)


def _at(trajectories: TrajectoryDataset, resolution: int) -> Stepper:
    substeps = scaled_substeps(trajectories, resolution)
    solver = native_solver(trajectories, resolution, None if substeps is None else {"substeps": substeps})
    return with_frame_step(solver, trajectories.manifest.recipe.every)


def _require_correction(correction: Surrogate, trajectories: TrajectoryDataset, folder: str) -> None:
    told = correction.training_config or {}
    if "data" in told and "correction" not in told:
        raise UsageError(
            f"`correction` (={folder}) holds a surrogate that predicts frames by itself: give the folder of a"
            " correction; `cliffsteer correct` trains one."
        )
    if not math.isclose(correction.dt, trajectories.dt, rel_tol=1e-9):
        raise UsageError(
            f"`correction` (={folder}) has the time step {correction.dt:g}, frames of the data are"
            f" {trajectories.dt:g} apart: give a correction that was trained on such data."
        )


def make_guards(
    descriptions: Sequence[Mapping[str, Any]], surrogate: Surrogate, trajectories: TrajectoryDataset, device: str
) -> list[Guard]:
    """Guards from their descriptions, with the solver and the other runs that some of them need."""
    guards = []
    for description in descriptions:
        short = short_solver(trajectories) if description["kind"] == "residual" else None
        members = [_member(run, surrogate, device) for run in description.get("runs", ())]
        guards.append(create_guard(description, surrogate, short, members))
    return guards


def _member(run: str, surrogate: Surrogate, device: str) -> Surrogate:
    """A further run of an ensemble.

    Raises:
        UsageError: a correction, or the surrogate itself.
    """
    member = load_surrogate(run, device, "ensemble")
    refuse_correction(member, run, "ensemble")
    if weights_checksum(member) == weights_checksum(surrogate):
        raise UsageError(
            f"`ensemble` (={run}) has the weights of the run itself, with which it never disagrees: give runs of other"
            " seeds."
        )
    return member


def short_solver(trajectories: TrajectoryDataset) -> Solver:
    """The solver of a dataset with a short time step, of one substep where it has substeps."""
    recipe = trajectories.manifest.recipe
    solver = solvers.create(recipe.solver, **recipe.options)
    options = {**recipe.options, "dt": solver.dt * SHORT}
    if hasattr(solver, "substeps"):
        options["substeps"] = 1
    return solvers.create(recipe.solver, **options)
