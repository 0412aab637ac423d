"""How good a Stepper is, on enumerated windows, beside baselines: errors, rollouts, turned test sets, symmetry."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric

from cliffsteer.baselines import Persistence
from cliffsteer.cost import count_weights
from cliffsteer.datasets import TrajectoryDataset, WindowDataset
from cliffsteer.grid import require_same_grid
from cliffsteer.metrics import CorrelationTime, Divergence, Drifts, FieldErrors, SpectralErrors, StableSteps
from cliffsteer.metrics.drift import Quantity
from cliffsteer.stepper import Stepper, rollout
from cliffsteer.storage import json_ready, replacing_file
from cliffsteer.surrogate import Surrogate
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.transformed import ROTATED, TurnedWindows, turning_symmetries

FORMAT_VERSION = 3


def evaluate(
    stepper: Stepper,
    trajectories: TrajectoryDataset,
    history: int | None = None,
    rollout_steps: int = 10,
    batch_size: int = 16,
    stride: int = 1,
    rollout_stride: int | None = None,
    rotated: str = "one",
    boosted: TrajectoryDataset | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    coarse: Mapping[str, Stepper] | None = None,
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
        rotated: measure the same windows turned by symmetries of the grid, each by "one" or by "all"; or "none".
        boosted: trajectories of the same system seen from moving frames, on a grid with a time axis.
        quantities: further numbers of frames whose drift is measured, as for `Drifts`.
        coarse: coarse solvers to stand beside persistence, `CoarseSolver` by factor.

    Returns:
        JSON-ready: "one_step" and "rollout" with the errors of "model", of "persistence" and, in "coarse", of each of
        those (as `FieldErrors` gives them, a value per lead time), and in "rollout" also "correlation", "spectrum",
        "divergence", "drift" and "stable" (as the classes of `cliffsteer.metrics` do); "rotated" and "boosted" with
        "one_step" and "rollout" of those; "equivariance"; and "dataset" and "settings", what it was measured on and
        how. For anything but a surrogate normalized_mse, component_mse and the equivariance error are left out.

    Raises:
        ValueError: fields, grid or time step that differ, a history shorter than the stepper's, trajectories too
            short for a window, an unknown choice, or boosts where there is no time axis.
    """
    history = stepper.history if history is None else history
    _check(stepper, trajectories, history)
    if rotated not in ROTATED:
        raise ValueError(f"`rotated` (={rotated!r}) must be one of {', '.join(map(repr, ROTATED))}.")
    if boosted is not None:
        _check_boosted(stepper, boosted, history)
    rollout_stride = rollout_stride or rollout_steps
    scales = stepper.field_scales if isinstance(stepper, Surrogate) else None

    def cut(data: TrajectoryDataset, steps: int, every: int) -> WindowDataset:
        return WindowDataset(data, history, steps, every)

    def errors(windows: Dataset, who: Stepper = stepper) -> dict[str, Any]:
        return rollout_errors(who, windows, batch_size, scales)

    def baselines(windows: Dataset) -> dict[str, Any]:
        found = {"persistence": errors(windows, persistence)}
        return found | ({"coarse": _coarse_errors(coarse, lambda who: errors(windows, who))} if coarse else {})

    persistence, windows = Persistence.of(stepper), cut(trajectories, 1, stride)
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dataset": _described(trajectories) | {"windows": len(windows), "history": history},
        "settings": {
            "history": history,
            "rollout_steps": rollout_steps,
            "stride": stride,
            "rollout_stride": rollout_stride,
            "rotated": rotated,
        },
        "one_step": {"model": errors(windows), **baselines(windows)},
    }
    if isinstance(stepper, nn.Module):
        result["weights"] = count_weights(stepper)
    parts = {"one_step": windows}
    if rollout_steps:
        parts["rollout"] = cut(trajectories, rollout_steps, rollout_stride)
        metrics = rollout_metrics(stepper, rollout_steps, scales, quantities)
        measured = measure(stepper, parts["rollout"], metrics, batch_size)
        result["rollout"] = {
            "steps": rollout_steps,
            "windows": len(parts["rollout"]),
            "model": measured.pop("errors"),
            **baselines(parts["rollout"]),
            **measured,
        }
    if rotated != "none" and (symmetries := turning_symmetries(stepper.spec.algebra, stepper.grid)):
        turned = {name: TurnedWindows(part, stepper.spec, stepper.grid, rotated) for name, part in parts.items()}
        result["rotated"] = {"which": rotated, "symmetries": len(symmetries)}
        result["rotated"] |= {name: {"model": errors(part)} for name, part in turned.items()}
    if boosted is not None:
        moving = {"one_step": cut(boosted, 1, stride)}
        if rollout_steps:
            moving["rollout"] = cut(boosted, rollout_steps, rollout_stride)
        result["boosted"] = {"dataset": _described(boosted) | {"windows": len(moving["one_step"])}}
        for name, part in moving.items():
            result["boosted"][name] = {"model": errors(part), "persistence": errors(part, persistence)}
    if isinstance(stepper, Surrogate):
        window = windows[len(windows) // 2]
        error, count = equivariance_error(stepper, window["history"][None], window["parameters"][None])
        result["equivariance"] = {"relative_error": error, "symmetries": count, "precision": "float64"}
    return result


def rollout_metrics(
    stepper: Stepper,
    steps: int,
    scales: Mapping[str, float] | None = None,
    quantities: Mapping[str, Quantity] | None = None,
) -> dict[str, Metric]:
    """All metrics of rollouts, by name; "divergence" where there is a field that has one.

    Args:
        stepper: whose fields, grid and time step they are for.
        steps: frames of a rollout.
        scales: scale of each field, for normalised errors.
        quantities: as for `Drifts`.
    """
    spec, grid, options = stepper.spec, stepper.grid, {"sync_on_compute": False}
    metrics: dict[str, Metric] = {
        "errors": FieldErrors(spec, steps, scales, **options),
        "correlation": CorrelationTime(spec, steps, stepper.dt, **options),
        "stable": StableSteps(spec, steps, **options),
        "spectrum": SpectralErrors(spec, grid, steps, **options),
        "drift": Drifts(spec, steps, quantities, **options),
    }
    divergence = Divergence(spec, grid, steps, **options)
    return metrics | ({"divergence": divergence} if divergence.measured else {})


def measure(
    stepper: Stepper, windows: Dataset, metrics: Mapping[str, Metric], batch_size: int = 16
) -> dict[str, dict[str, Any]]:
    """Roll out over the whole future of every window, once for all metrics.

    Args:
        stepper: what is rolled out.
        windows: a `WindowDataset`, a part of one, or `TurnedWindows`.
        metrics: metrics of rollouts, for as many lead times as the futures have.
        batch_size: windows rolled out together.

    Returns:
        What each of them computes.
    """
    spec, device = stepper.spec, _device(stepper)
    metrics = {name: metric.to(device) for name, metric in metrics.items()}
    for batch in DataLoader(windows, batch_size, generator=torch.Generator()):  # else it draws from the global one
        history, future = batch["history"].to(device), batch["future"].to(device)
        parameters = spec.unpack_parameters(batch["parameters"].to(device))
        with torch.no_grad():
            predicted = rollout(stepper, history, future.shape[1], parameters)
        for metric in metrics.values():
            before = (history[:, -1:],) if isinstance(metric, Drifts) else ()
            metric.update(predicted, future, *before)
    return {name: metric.compute() for name, metric in metrics.items()}


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
    errors = FieldErrors(stepper.spec, len(windows[0]["future"]), scales, sync_on_compute=False)
    return measure(stepper, windows, {"errors": errors}, batch_size)["errors"]


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


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], tolerance: float = 1e-4
) -> list[tuple[str, float | None, float | None]]:
    """The numbers in which two results of `evaluate` differ.

    Those of "cost", "training", "boosted" and "coarse" are left out, and so are the sizes of splits: what is in one of
    them does not depend on the others.

    Args:
        before: a result, perhaps read from JSON.
        now: another one.
        tolerance: largest relative difference that counts as none; so does an absolute one below 1e-9.

    Returns:
        Name, value before and value now, None where there is none.
    """
    old, new = (dict(_numbers(json_ready(result))) for result in (before, now))
    names = [name for name in old | new if name.partition(".")[0] not in ("cost", "training", "boosted")]
    names = [name for name in names if name.split(".")[1:2] != ["coarse"]]
    names = [name for name in names if not name.startswith(("dataset.recipe.splits.", "dataset.recipe.batch"))]
    found = [(name, old.get(name), new.get(name)) for name in names]
    return [entry for entry in found if not _close(*entry[1:], tolerance)]


def write_metrics(metrics: Mapping[str, Any], path: str | Path) -> Path:
    """Write metrics as JSON, whole or not at all; what is not a finite number becomes null.

    Raises:
        OSError: the file cannot be written; an older one is still there.
    """
    text = json.dumps(json_ready(metrics), indent=2, allow_nan=False) + "\n"
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """All numbers in a JSON value by the path to them; None for null."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _numbers(item, f"{name}.{key}".strip("."))
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield name, value


def _coarse_errors(
    coarse: Mapping[str, Stepper], errors: Callable[[Stepper], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    found = {}
    for factor, solver in coarse.items():
        try:
            found[factor] = errors(solver)
        except ValueError as error:
            raise ValueError(f"`coarse`: the solver on a grid {factor} times coarser failed: {error}") from error
    return found


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    return a == b if a is None or b is None else math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-9)


def _check(stepper: Stepper, trajectories: TrajectoryDataset, history: int) -> None:
    if stepper.spec != trajectories.spec:
        raise ValueError(f"`trajectories` hold {trajectories.spec}, but the stepper is for {stepper.spec}.")
    require_same_grid("trajectories", trajectories.grid, stepper.grid)
    if not math.isclose(stepper.dt, trajectories.dt, rel_tol=1e-9):
        raise ValueError(f"`trajectories` has time step {trajectories.dt}, but the stepper's is {stepper.dt}.")
    if history < stepper.history:
        raise ValueError(f"`history` (={history}) must be at least the stepper's own, {stepper.history}.")


def _check_boosted(stepper: Stepper, boosted: TrajectoryDataset, history: int) -> None:
    _check(stepper, boosted, history)
    if len(set(stepper.spec.algebra.signature)) == 1:
        raise ValueError(
            f"`boosted` needs a grid with an axis of time, but {stepper.spec.algebra} has only axes of one sign."
        )


def _described(trajectories: TrajectoryDataset) -> dict[str, Any]:
    """What the data are, JSON-ready."""
    return {
        "split": trajectories.split,
        "trajectories": trajectories.n_trajectories,
        "frames": trajectories.n_frames,
        "dt": trajectories.dt,
        "time_unit": trajectories.manifest.time_unit,
        "recipe": asdict(trajectories.manifest.recipe),
    }


def _device(stepper: Stepper) -> torch.device:
    parameters = stepper.parameters() if isinstance(stepper, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))
