"""``cliffsteer rollout``: roll a trained run out, alone or coupled to its solver, beside the stored trajectory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from cliffsteer import plotting
from cliffsteer.baselines import Persistence
from cliffsteer.commands.couplings import create_coupling
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import load_surrogate, open_split
from cliffsteer.coupling import Guarded
from cliffsteer.coupling.pictures import guard_figure
from cliffsteer.fields import FieldSpec
from cliffsteer.metrics import FieldErrors
from cliffsteer.stepper import rollout
from cliffsteer.storage import replacing_file
from cliffsteer.surrogate import Surrogate


def run(config: DictConfig) -> None:
    """Write rollout.npz, errors.png and rollout.gif, and a line for each field to stdout.

    Raises:
        ValueError: an unknown coupling, or a start from which the trajectory has no frame left to compare with.
    """
    if config.hand_back < 0:
        raise UsageError(f"`hand_back` (={config.hand_back}) must be at least 0.")
    surrogate = load_surrogate(config.run, config.device)
    trajectories = open_split(surrogate, config.root, config.split)
    stepper = create_coupling(config.coupling, surrogate, trajectories, config)
    if config.field is not None and surrogate.spec[config.field].role != "dynamic":
        raise ValueError(f"`field` (={config.field!r}) is a parameter: it does not evolve.")
    first = config.start + stepper.history
    if first >= trajectories.n_frames:
        raise ValueError(
            f"`start` (={config.start}) leaves nothing to compare with: {stepper.history} frames are read and the"
            f" trajectories have {trajectories.n_frames}."
        )
    stop = min(first + config.steps, trajectories.n_frames)
    frames = trajectories.read(config.trajectory, config.start, stop)
    history, truth = frames[None, : stepper.history], frames[stepper.history :]
    device = next(surrogate.parameters()).device
    packed = trajectories.parameters[config.trajectory, None]
    parameters = surrogate.spec.unpack_parameters(packed.to(device))
    began = time.perf_counter()
    with torch.no_grad():
        predicted = rollout(stepper, history.to(device), config.steps, parameters)[0].cpu()
    seconds = time.perf_counter() - began
    still = rollout(Persistence.of(surrogate), history, len(truth))[0]
    out = output_folder(config)
    curves = _write(out, surrogate, {config.coupling: predicted, "persistence": still}, truth, config.field)
    last = len(truth)
    sys.stdout.write(
        f"{config.steps} frames ({config.coupling}) of trajectory {config.trajectory} of split {config.split} of"
        f" {trajectories.root} in {seconds:.2f} s; NRMSE after {last} steps, and its ratio to persistence\n"
    )
    for name, values in curves.items():
        error, reference = values[config.coupling][-1], values["persistence"][-1]
        ratio = f"  ({error / reference:.3g})" if reference else ""
        sys.stdout.write(f"  {name:12} {error:.4g}{ratio}\n")
    if isinstance(stepper, Guarded):
        sys.stdout.write(_interventions(stepper, out))
    sys.stdout.write(f"Frames, errors and animation: {out}\n")


def _interventions(stepper: Guarded, out: Path) -> str:
    """Write guards.json and a picture of where the guards tripped; returns lines for people."""
    summary = stepper.summary()
    with replacing_file(out / "guards.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with replacing_file(out / "guards.png") as temporary:
        guard_figure(stepper).savefig(temporary, format="png")
    counts = summary["counts"]
    lines = [
        f"Frames of the surrogate: {counts['surrogate']}, rejected: {counts['rejected']}, handed back to the solver:"
        f" {counts['handed back']}"
    ]
    lines += [
        f"  step {event['step']:4}: {event['guard']} {event['score']:.4g}, allowed is {event['threshold']:.4g}"
        for event in summary["events"]
    ]
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
    out: Path, surrogate: Surrogate, predictions: Mapping[str, Tensor], truth: Tensor, field: str | None
) -> dict[str, dict[str, list[float]]]:
    """Write what there is to see; returns field -> label -> errors."""
    spec, grid, dt = surrogate.spec, surrogate.grid, surrogate.dt
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
