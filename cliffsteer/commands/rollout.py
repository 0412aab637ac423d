"""``cliffsteer rollout``: roll a trained run out, alone or coupled to its solver, beside the stored trajectory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from cliffsteer import plotting, solvers
from cliffsteer.baselines import Persistence
from cliffsteer.commands.couplings import create_coupling, is_correction
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import load_surrogate, open_split, require_fit
from cliffsteer.coupling import Guarded
from cliffsteer.coupling.pictures import guard_figure, last_part, spectra_figure, spectra_of
from cliffsteer.coupling.transfer import transfer
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.fields import FieldSpec
from cliffsteer.metrics import FieldErrors, SpectralErrors
from cliffsteer.stepper import Stepper, rollout
from cliffsteer.storage import json_ready, replacing_file

FILE = "rollout.json"
"""What a rollout is and how it went, in its folder: `cliffsteer report` reads it."""
INTERVENTIONS = "interventions"
"""Name of the file of events of guards, and of their picture. `guards.json` is another: the thresholds of a run."""


def run(config: DictConfig) -> None:
    """Write rollout.npz, rollout.json and pictures, and a line for each field to stdout.

    Raises:
        UsageError: a number out of its range, or an unknown coupling.
        ValueError: a start from which the trajectory has no frame left to compare with.
    """
    for name, least in (("hand_back", 0), ("steps", 1), ("start", 0)):
        if config[name] < least:
            raise UsageError(f"`{name}` (={config[name]}) must be at least {least}.")
    surrogate = load_surrogate(config.run, config.device)
    trajectories = open_split(surrogate, config.root, config.split)
    other_cells = is_correction(surrogate) or config.coupling == "coarse_to_fine"
    require_fit(trajectories, "root", surrogate, config.run, same_cells=not other_cells)
    stepper = create_coupling(config.coupling, surrogate, trajectories, config)
    spec, grid = stepper.spec, stepper.grid
    if config.field is not None and spec[config.field].role != "dynamic":
        raise ValueError(f"`field` (={config.field!r}) is a parameter: it does not evolve.")
    frames = _frames(trajectories, config, stepper.history)
    frames = transfer(frames[None], spec, trajectories.grid, grid)[0]
    history, truth = frames[None, : stepper.history], frames[stepper.history :]
    device = next(surrogate.parameters()).device
    packed = trajectories.parameters[config.trajectory, None]
    parameters = spec.unpack_parameters(packed.to(device))
    began = time.perf_counter()
    with torch.no_grad():
        predicted = rollout(stepper, history.to(device), config.steps, parameters)[0].cpu()
    seconds = time.perf_counter() - began
    still = rollout(Persistence.of(stepper), history, len(truth))[0]
    out, unit = output_folder(config), trajectories.manifest.time_unit
    curves = _write(out, stepper, {config.coupling: predicted, "persistence": still}, truth, config.field)
    found = _spectra(out, stepper, {"solver": truth, config.coupling: predicted}, unit)
    last = len(truth)
    sys.stdout.write(
        f"{config.steps} frames ({config.coupling}) of trajectory {config.trajectory} of split {config.split} of"
        f" {trajectories.root} in {seconds:.2f} s; NRMSE after {last} steps, and its ratio to persistence\n"
    )
    for name, values in curves.items():
        error, reference = values[config.coupling][-1], values["persistence"][-1]
        ratio = f"  ({error / reference:.3g})" if reference else ""
        sys.stdout.write(f"  {name:12} {error:.4g}{ratio}\n")
    for name, shares in found["bands"].items():
        cells = ", ".join(
            f"{band} {'not finite' if share is None else f'{share:.3g}'}" for band, share in shares.items()
        )
        sys.stdout.write(f"  energy of {name} over the solver's, last quarter, by wave number: {cells}\n")
    if isinstance(stepper, Guarded):
        sys.stdout.write(_interventions(stepper, out))
    else:  # those of an older rollout in this folder
        for suffix in ("json", "png"):
            (out / f"{INTERVENTIONS}.{suffix}").unlink(missing_ok=True)
    facts = {key: config[key] for key in ("coupling", "split", "trajectory", "start", "steps")}
    facts |= {"root": str(trajectories.root), "dt": stepper.dt, "time_unit": unit, "cells": list(grid.shape)}
    facts |= {"compared": last, "history": stepper.history, "stored": trajectories.n_frames, "seconds": seconds}
    content = {**facts, "errors": {name: json_ready(values) for name, values in curves.items()}, **found}
    with replacing_file(out / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"Frames, errors, spectra and animation: {out}\n")


def _frames(trajectories: TrajectoryDataset, config: DictConfig, history: int) -> Tensor:
    """What is read and what is to be compared with, (time, blade, *grid).

    Raises:
        ValueError: nothing left to compare with.
    """
    first = config.start + history
    if first >= trajectories.n_frames + (config.extend and history <= trajectories.n_frames - config.start):
        raise ValueError(
            f"`start` (={config.start}) leaves nothing to compare with: {history} frames are read and the"
            f" trajectories have {trajectories.n_frames}."
        )
    stop = min(first + config.steps, trajectories.n_frames)
    frames = trajectories.read(config.trajectory, config.start, stop)
    missing = first + config.steps - stop
    if not (config.extend and missing):
        return frames
    recipe = trajectories.manifest.recipe
    solver = solvers.create(recipe.solver, **recipe.options)
    state = solver.restore(
        frames[None, -1:].double(),
        trajectories.spec.unpack_parameters(trajectories.parameters[config.trajectory, None]),
    )
    further = []
    for _ in range(missing):
        for _ in range(recipe.every):
            state = solver.advance(state)
        further.append(solver.observe(state)[0])
    return torch.cat([frames, *further]).float()


def _spectra(out: Path, stepper: Stepper, frames: Mapping[str, Tensor], time_unit: str) -> dict[str, Any]:
    """Write the picture of spectra; returns them, and "bands", energies over the solver's by band of wave numbers."""
    spec, grid = stepper.spec, stepper.grid
    truth, predicted = frames.values()
    found = spectra_of(spec, grid, frames)
    with replacing_file(out / "spectra.png") as temporary:
        spectra_figure(found, stepper.dt, grid.unit[-1], time_unit).savefig(temporary, format="png")
    end = len(truth)
    measure = SpectralErrors(spec, grid, 1)
    measure.update(last_part(predicted[:end])[:, None], last_part(truth)[:, None])
    fields = measure.compute()["fields"]
    bands = {
        name: {band: json_ready(share[0]) for band, share in parts["energy"].items()} for name, parts in fields.items()
    }
    return {**found, "bands": bands}


def _interventions(stepper: Guarded, out: Path) -> str:
    """Write interventions.json and a picture of where the guards tripped; returns lines for people."""
    summary = stepper.summary()
    with replacing_file(out / f"{INTERVENTIONS}.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with replacing_file(out / f"{INTERVENTIONS}.png") as temporary:
        guard_figure(stepper).savefig(temporary, format="png")
    counts = summary["counts"]
    lines = [
        f"Frames of the surrogate: {counts['surrogate']}, rejected: {counts['rejected']}, handed back to the solver:"
        f" {counts['handed back']}"
    ]
    for guard in dict.fromkeys(event.guard for event in stepper.events):
        steps = [event.step for event in stepper.events if event.guard == guard]
        lines.append(f"  {guard}: tripped {len(steps)} times, from step {steps[0]} to step {steps[-1]}")
    return "\n".join(lines) + "\n"


def named(spec: FieldSpec, frames: Tensor) -> dict[str, np.ndarray]:
    """Fields of frames (time, blade, *grid): scalars (time, *grid), others (time, component, *grid)."""
    fields = spec.unpack(frames[None])
    return {name: (value[0, :, 0] if value.shape[2] == 1 else value[0]).numpy() for name, value in fields.items()}


def errors(spec: FieldSpec, predicted: Tensor, truth: Tensor) -> dict[str, list[float]]:
    """NRMSE of each field after each step, of frames (time, blade, *grid); predicted ones may go on for longer."""
    measure = FieldErrors(spec, len(truth))
    measure.update(predicted[None, : len(truth)], truth[None])
    return {name: values["nrmse"] for name, values in measure.compute()["fields"].items()}


def _write(
    out: Path, stepper: Stepper, predictions: Mapping[str, Tensor], truth: Tensor, field: str | None
) -> dict[str, dict[str, list[float]]]:
    """Write what there is to see; returns field -> label -> errors."""
    spec, grid, dt = stepper.spec, stepper.grid, stepper.dt
    measured = {label: errors(spec, frames, truth) for label, frames in predictions.items()}
    curves = {
        name: {label: values[name] for label, values in measured.items()} for name in next(iter(measured.values()))
    }
    label, predicted = next(iter(predictions.items()))
    arrays = {f"truth_{name}": value for name, value in named(spec, truth).items()} | named(spec, predicted)
    with replacing_file(out / "rollout.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, time=dt * np.arange(1, len(predicted) + 1), **arrays)
    for name, values in curves.items():
        with replacing_file(out / f"errors_{name}.png") as temporary:
            plotting.error_curves(values, dt, name).savefig(temporary, format="png")
    if grid.dim > 1:
        sequences = {"truth": truth, label: predicted} if len(truth) == len(predicted) else {label: predicted}
        plotting.save_animation(out / "rollout.gif", spec, grid, sequences, dt, field)
    return curves
