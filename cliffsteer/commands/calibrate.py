"""``cliffsteer calibrate``: thresholds of a run's guards, on held-out data, for a wanted rate of false alarms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cliffsteer.commands.couplings import FILE, make_guards
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate, open_split
from cliffsteer.coupling import calibrate, save_guards
from cliffsteer.coupling.calibration import KINDS, describe_guards
from cliffsteer.datasets import WindowDataset
from cliffsteer.suggestions import suggestion


def run(config: DictConfig) -> None:
    """Write guards.json into the run folder and a table to stdout.

    Raises:
        UsageError: an unknown guard, or a number out of its range.
    """
    for name in ("steps", "stride", "batch_size"):
        if config[name] < 1:
            raise UsageError(f"`{name}` (={config[name]}) must be at least 1.")
    if not 0 < config.rate < 1:
        raise UsageError(f"`rate` (={config.rate}) must lie between 0 and 1.")
    for kind in config.guards or ():
        if kind not in KINDS:
            hint = suggestion(kind, KINDS) or ";"
            raise UsageError(f"`guards` (={kind!r}) is unknown{hint} guards: {', '.join(KINDS)}.")
    surrogate = load_surrogate(config.run, config.device)
    held_out, training = (open_split(surrogate, config.root, split) for split in (config.split, "train"))
    windows = WindowDataset(held_out, surrogate.history, surrogate.future, config.stride)
    descriptions = _descriptions(config, surrogate, WindowDataset(training, surrogate.history, surrogate.future))
    guards = make_guards(descriptions, surrogate, held_out, config.device)
    facts = calibrate(guards, surrogate, windows, config.rate, config.steps, config.batch_size)
    facts["dataset"] = {"root": str(held_out.root), "split": held_out.split}
    path = save_guards(Path(config.run) / FILE, descriptions, guards, facts)
    sys.stdout.write(
        f"{facts['steps']} steps of {config.run} on split {held_out.split} of {held_out.root}; wanted rate of alarms"
        f" {config.rate:g}, reached {facts['alarms']:.3g}\n"
        f"  {'guard':24} {'threshold':>11} {'median':>11} {'alarms':>8}\n"
    )
    for name, found in facts["guards"].items():
        cells = f"{found['threshold']:11.4g} {found['median']:11.4g} {found['alarms']:8.3g}"
        sys.stdout.write(f"  {name:24} {cells}\n")
    sys.stdout.write(f"Guards: {path}; `cliffsteer rollout run={config.run} coupling=guarded` uses them\n")


def _descriptions(config: DictConfig, surrogate: Any, windows: WindowDataset) -> list[dict[str, Any]]:
    """The guards asked for; those that suit the data by default."""
    found = describe_guards(surrogate, windows)
    if config.guards is not None:
        found = [description for description in found if description["kind"] in config.guards]
        if "residual" in config.guards:
            found.append({"kind": "residual"})
    if config.ensemble:
        found.append({"kind": "disagreement", "runs": [str(run) for run in config.ensemble]})
    if not found:
        raise UsageError(f"`guards` (={list(config.guards)}) leaves none that suits these data.")
    return found
