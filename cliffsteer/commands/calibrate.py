"""``cliffsteer calibrate``: thresholds of a run's guards, on held-out data, for a wanted rate of false alarms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cliffsteer.commands.couplings import FILE, make_guards, refuse_correction
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate, open_split, require_fit
from cliffsteer.coupling import calibrate, save_guards
from cliffsteer.coupling.calibration import BUDGETS, KINDS, describe_guards
from cliffsteer.datasets import WindowDataset
from cliffsteer.suggestions import suggestion


def run(config: DictConfig) -> None:
    """Write guards.json into the run folder and a table to stdout.

    Raises:
        UsageError: an unknown guard, one that does not suit the data, a number out of its range, a correction, or an
            ensemble with the run itself.
    """
    for name in ("steps", "stride", "batch_size"):
        if config[name] < 1:
            raise UsageError(f"`{name}` (={config[name]}) must be at least 1.")
    if not 0 < config.rate < 1:
        raise UsageError(f"`rate` (={config.rate}) must lie between 0 and 1.")
    for key in ("guards", "add"):
        for kind in config[key] or ():
            if kind not in KINDS:
                hint = suggestion(kind, KINDS) or ";"
                raise UsageError(f"`{key}` (={kind!r}) is unknown{hint} guards: {', '.join(KINDS)}.")
    surrogate = load_surrogate(config.run, config.device)
    refuse_correction(surrogate, config.run)
    held_out, training = (open_split(surrogate, config.root, split) for split in (config.split, "train"))
    require_fit(held_out, "root", surrogate, config.run)
    windows = WindowDataset(held_out, surrogate.history, surrogate.future, config.stride)
    descriptions = _descriptions(config, surrogate, WindowDataset(training, surrogate.history, surrogate.future))
    guards = make_guards(descriptions, surrogate, held_out, config.device)
    facts = calibrate(guards, surrogate, windows, config.rate, config.steps, config.batch_size)
    count = len(held_out)
    them = "1 trajectory" if count == 1 else f"{count} trajectories"
    facts["dataset"] = {"root": str(held_out.root), "split": held_out.split, "trajectories": count}
    path = save_guards(Path(config.run) / FILE, descriptions, guards, facts, surrogate)
    sys.stdout.write(
        f"{facts['steps']} steps of {config.run}, from {facts['windows']} windows of {them} of split"
        f" {held_out.split} of {held_out.root}\n"
        f"Wanted rate of alarms {config.rate:g}: at most {facts['bound']:.3g} is expected on steps like these, on these"
        f" it is {facts['alarms']:.3g}. Steps of one trajectory are not independent, and there are {them}.\n"
        f"  {'guard':24} {'threshold':>11} {'median':>11} {'alarms':>8}\n"
    )
    for name, found in facts["guards"].items():
        cells = f"{found['threshold']:11.4g} {found['median']:11.4g} {found['alarms']:8.3g}"
        sys.stdout.write(f"  {name:24} {cells}\n")
    sys.stdout.write(f"Guards: {path}; `cliffsteer rollout run={config.run} coupling=guarded` uses them\n")


def _descriptions(config: DictConfig, surrogate: Any, windows: WindowDataset) -> list[dict[str, Any]]:
    """The guards asked for; those that suit the data by default.

    Raises:
        UsageError: one that was asked for does not suit the data.
    """
    found = describe_guards(surrogate, windows, budgets=config.steps > 1)
    asked = {*(config.guards or ()), *config.add}
    if config.steps == 1 and asked & {*BUDGETS}:
        raise UsageError(
            f"`steps` (=1) does not go with {', '.join(sorted(asked & {*BUDGETS}))}: budgets add up over a rollout;"
            " calibrate over as many steps as you mean to roll out, as steps=10."
        )
    if "residual" in asked:
        found.append({"kind": "residual"})
    if config.ensemble:
        found.append({"kind": "disagreement", "runs": [str(run) for run in config.ensemble]})
    suited = {description["kind"] for description in found}
    for key in ("guards", "add"):
        missing = [kind for kind in config[key] or () if kind not in suited]
        if "disagreement" in missing:
            raise UsageError(
                f"`ensemble` is missing: {key}=[disagreement] compares the run with further ones; give them."
            )
        if missing:
            raise UsageError(
                f"`{key}` asks for {', '.join(missing)}, which the training data do not obey or have no field for; what"
                f" suits them: {', '.join(sorted({*suited, 'residual'}))}."
            )
    if config.guards is None:
        return found
    wanted = {"finite", *config.guards, *config.add, *(["disagreement"] if config.ensemble else ())}
    return [description for description in found if description["kind"] in wanted]
