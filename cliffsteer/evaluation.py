"""How good a Stepper is: one-step and rollout errors on enumerated windows, beside persistence, and its symmetry."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cliffsteer.baselines import Persistence
from cliffsteer.datasets import TrajectoryDataset, WindowDataset
from cliffsteer.grid import require_same_grid
from cliffsteer.metrics import FieldErrors
from cliffsteer.stepper import Stepper, rollout
from cliffsteer.storage import replacing_file
from cliffsteer.surrogate import Surrogate
from cliffsteer.symmetry import lattice_symmetries

FORMAT_VERSION = 1


def evaluate(
    stepper: Stepper,
    trajectories: TrajectoryDataset,
    history: int | None = None,
    rollout_steps: int = 10,
    batch_size: int = 16,
    stride: int = 1,
    rollout_stride: int | None = None,
) -> dict[str, Any]:
    """Measure a stepper on held-out trajectories. Nothing is drawn at random: every window is enumerated.

    Args:
        stepper: a surrogate, a solver, or any other Stepper with the dataset's fields, grid and time step.
        trajectories: one split of a dataset.
        history: frames before the first predicted one; at least the stepper's own. Steppers with different histories
            are compared on the same frames when given the larger one.
        rollout_steps: frames of a rollout; 0 for no rollouts.
        batch_size: windows evaluated together; the result does not depend on it beyond rounding.
        stride: frames between two windows of the one-step errors.
        rollout_stride: frames between the starts of two rollouts of one trajectory; ``rollout_steps`` by default.

    Returns:
        JSON-ready: ``{"dataset": ..., "one_step": {"model": errors, "persistence": errors}, "rollout": the same with a
        value per lead time, "equivariance": {"relative_error": ...}}``, with errors as `FieldErrors` gives them. For
        anything but a surrogate normalized_mse, component_mse and the equivariance error are left out.

    Raises:
        ValueError: fields, grid or time step that differ, a history shorter than the stepper's, or trajectories too
            short for a window.
    """
    history = stepper.history if history is None else history
    _check(stepper, trajectories, history)
    persistence, scales = Persistence.of(stepper), None
    if isinstance(stepper, Surrogate):
        scales = stepper.field_scales
    windows = WindowDataset(trajectories, history, 1, stride)
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dataset": {
            "split": trajectories.split,
            "trajectories": trajectories.n_trajectories,
            "frames": trajectories.n_frames,
            "windows": len(windows),
            "history": history,
            "dt": trajectories.dt,
        },
        "one_step": {
            "model": rollout_errors(stepper, windows, batch_size, scales),
            "persistence": rollout_errors(persistence, windows, batch_size, scales),
        },
    }
    if isinstance(stepper, nn.Module):
        result["weights"] = sum(p.numel() for p in stepper.parameters())
    if rollout_steps:
        starts = WindowDataset(trajectories, history, rollout_steps, rollout_stride or rollout_steps)
        result["rollout"] = {
            "steps": rollout_steps,
            "windows": len(starts),
            "model": rollout_errors(stepper, starts, batch_size, scales),
            "persistence": rollout_errors(persistence, starts, batch_size, scales),
        }
    if isinstance(stepper, Surrogate):
        window = windows[len(windows) // 2]
        error, count = equivariance_error(stepper, window["history"][None], window["parameters"][None])
        result["equivariance"] = {"relative_error": error, "symmetries": count, "precision": "float64"}
    return result


def rollout_errors(
    stepper: Stepper, windows: Dataset, batch_size: int = 16, scales: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Errors of rollouts over the whole future of every window, per lead time.

    Args:
        stepper: what is rolled out.
        windows: a `WindowDataset`, or a part of one.
        batch_size: windows rolled out together.
        scales: scale of each field, for normalised errors.
    """
    spec, device = stepper.spec, _device(stepper)
    errors = FieldErrors(spec, len(windows[0]["future"]), scales, sync_on_compute=False).to(device)
    for batch in DataLoader(windows, batch_size, generator=torch.Generator()):  # else it draws from the global one
        history, future = batch["history"].to(device), batch["future"].to(device)
        parameters = spec.unpack_parameters(batch["parameters"].to(device))
        with torch.no_grad():
            errors.update(rollout(stepper, history, future.shape[1], parameters), future)
    return errors.compute()


def equivariance_error(stepper: Stepper, frames: Tensor, parameters: Tensor) -> tuple[float, int]:
    """Largest relative error of step(gx, gp) = g step(x, p) over the lattice's symmetries g, in float64.

    The error is relative to the change of the last frame, which is what a network predicts:

        max_g ‖step(gx, gp) − g step(x, p)‖ / ‖step(x, p) − x_h‖

    A network is measured as a copy in float64, so that rounding does not hide a small violation.

    Args:
        stepper: the stepper; its grid says which symmetries there are.
        frames: a history, (batch, time, blade, *grid).
        parameters: packed parameters, (batch, blade).

    Returns:
        The error, and the number of symmetries.
    """
    if isinstance(stepper, nn.Module):
        stepper = copy.deepcopy(stepper).double().cpu()
    frames, parameters = frames.double().cpu(), parameters.double().cpu()
    spec, algebra = stepper.spec, stepper.spec.algebra

    def step(x: Tensor, p: Tensor) -> Tensor:
        return stepper.step(x, spec.unpack_parameters(p) if spec.parameters else None)

    worst, count = 0.0, 0
    with torch.no_grad():
        reference = step(frames, parameters)
        size = float((reference - frames[:, -1:]).norm())
        for g in lattice_symmetries(algebra, stepper.grid):
            turned = g.turn(algebra, parameters) if spec.parameters else parameters
            difference = float((step(g.act(algebra, frames), turned) - g.act(algebra, reference)).norm())
            error = difference / size if size else (math.inf if difference else 0.0)
            worst = error if math.isnan(error) or error > worst else worst
            count += 1
    return worst, count


def write_metrics(metrics: Mapping[str, Any], path: str | Path) -> Path:
    """Write metrics as JSON, whole or not at all; what is not a finite number becomes null.

    Raises:
        OSError: the file cannot be written; an older one is still there.
    """
    text = json.dumps(_finite(metrics), indent=2, allow_nan=False) + "\n"
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _check(stepper: Stepper, trajectories: TrajectoryDataset, history: int) -> None:
    if stepper.spec != trajectories.spec:
        raise ValueError(f"`trajectories` hold {trajectories.spec}, but the stepper is for {stepper.spec}.")
    require_same_grid("trajectories", trajectories.grid, stepper.grid)
    if not math.isclose(stepper.dt, trajectories.dt, rel_tol=1e-9):
        raise ValueError(f"`trajectories` has time step {trajectories.dt}, but the stepper's is {stepper.dt}.")
    if history < stepper.history:
        raise ValueError(f"`history` (={history}) must be at least the stepper's own, {stepper.history}.")


def _device(stepper: Stepper) -> torch.device:
    parameters = stepper.parameters() if isinstance(stepper, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def _finite(value: Any) -> Any:
    """The value with None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
