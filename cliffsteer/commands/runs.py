"""Run folders, as the verbs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cliffsteer import solvers
from cliffsteer.coupling import Repeated
from cliffsteer.datasets import TrajectoryDataset, read_manifest
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.report import Entry
from cliffsteer.report_rollouts import read_rollouts
from cliffsteer.stepper import Stepper
from cliffsteer.surrogate import Surrogate, read_config, saved_checksum


def surrogate_folder(run: str | Path, key: str = "run") -> Path:
    """The folder of the saved surrogate of a run; the run itself when `Surrogate.save_pretrained` wrote it.

    Args:
        run: folder of the run.
        key: what it was given as.

    Raises:
        FileNotFoundError: no such run, or its training has not finished.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(
            f"`{key}` (={run}) does not exist: give the folder of a run; `cliffsteer info` lists them."
        )
    folder = run if (run / "model.safetensors").is_file() else run / "surrogate"
    if not folder.is_dir():
        unfinished = (run / "checkpoints").is_dir()
        hint = "its training has not finished, the same `cliffsteer train` goes on" if unfinished else "give a run"
        raise FileNotFoundError(f"`{key}` (={run}) holds no surrogate: {hint}.")
    return folder


def load_surrogate(run: str | Path, device: str = "auto", key: str = "run") -> Surrogate:
    """The surrogate of a run, or of a folder written by `Surrogate.save_pretrained`; ``key`` is what it was given as.

    Raises:
        FileNotFoundError: no such run, or its training has not finished.
        ValueError: a surrogate of another version or a damaged one, or a device that is not there.
    """
    return Surrogate.from_pretrained(surrogate_folder(run, key), device_of(device))


def read_saved(run: str | Path) -> dict[str, Any]:
    """The config of the saved surrogate of a run, without its weights; errors as `load_surrogate`."""
    return read_config(surrogate_folder(run) / "config.json")


def training_facts(run: str | Path, surrogate: Surrogate) -> dict[str, Any]:
    """What is known of a training: "seconds" it took, "trajectories" it read; None for what is not known."""
    data = (surrogate.training_config or {}).get("data", {})
    root, count = data.get("root"), data.get("trajectories") or None
    if count is None and root is not None and (Path(root) / "dataset.json").is_file():
        count = read_manifest(root).recipe.splits.get("train")
    return {"seconds": read_scalars(Path(run) / "tensorboard")[1], "trajectories": count}


def open_split(surrogate: Surrogate, root: str | None, split: str) -> TrajectoryDataset:
    """A split of a dataset, by default of the one that the surrogate was trained on.

    Raises:
        ValueError: no root is given and the surrogate does not know its dataset.
        FileNotFoundError: the dataset is not there.
    """
    root = root or (surrogate.training_config or {}).get("data", {}).get("root")
    if root is None:
        raise ValueError("`root` is missing: this surrogate does not say what it was trained on; give a dataset.")
    return TrajectoryDataset(root, split)


def require_fit(
    trajectories: TrajectoryDataset, key: str, surrogate: Surrogate, run: str | Path, same_cells: bool = True
) -> None:
    """Refuse to measure a run on data of another system.

    Args:
        trajectories: the data.
        key: what their folder was given as.
        surrogate: that of the run.
        run: its folder.
        same_cells: False where frames are brought to another grid of the same domain, as for corrections.

    Raises:
        ValueError: other fields, another grid or another time step.
    """
    unit = trajectories.manifest.time_unit
    domains = ("the domain", _domain(trajectories.grid), _domain(surrogate.grid))
    for what, there, here in (
        ("the fields", _fields(trajectories.spec), _fields(surrogate.spec)),
        ("the grid", trajectories.grid, surrogate.grid) if same_cells else domains,
        ("the time step", f"{trajectories.dt:g} {unit}", f"{surrogate.dt:g} {unit}"),
    ):
        if there != here:
            raise ValueError(
                f"`{key}` (={trajectories.root}) holds data with {what} {there}, but `run` (={run}) is for {here}: give"
                " data of the system that it was trained on."
            )


def _domain(grid: Grid) -> str:
    sides = zip(grid.extent, grid.unit, grid.boundary, strict=True)
    return " x ".join(f"{extent:g} {unit} ({' to '.join(walls)})" for extent, unit, walls in sides)


def _fields(spec: FieldSpec) -> str:
    signature = ",".join(f"{sign:+d}" for sign in spec.algebra.signature)
    named = (f"{f.name} (grade {f.grade}, {f.role}, {f.unit})" for f in spec.fields)
    return f"{', '.join(named)} of signature ({signature})"


def solver_of(trajectories: TrajectoryDataset) -> Stepper:
    """The solver that made a dataset, with the time step of its frames."""
    recipe = trajectories.manifest.recipe
    solver = solvers.create(recipe.solver, **recipe.options)
    return solver if recipe.every == 1 else Repeated(solver, recipe.every)


def read_metrics(run: str | Path) -> dict[str, Any]:
    """What ``cliffsteer evaluate`` wrote about a run.

    Raises:
        FileNotFoundError: the run was not evaluated.
        ValueError: the file is damaged, or the run was trained on since.
    """
    path = Path(run) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `cliffsteer evaluate run={run}` makes it.")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): `cliffsteer evaluate run={run}` makes it again.") from error
    if metrics.get("weights_sha256") not in (None, saved_checksum(surrogate_folder(run))):
        raise ValueError(
            f"{run} has other weights than those that were evaluated: `cliffsteer evaluate run={run}` measures them."
        )
    return metrics


def read_entry(run: str | Path) -> Entry:
    """An evaluated run, as the report takes it; errors as `load_surrogate` and `read_metrics`."""
    run = Path(run)
    scalars, seconds = read_scalars(run / "tensorboard")
    return Entry(run.name, load_surrogate(run), read_metrics(run), scalars, seconds, read_rollouts(run))


def read_scalars(folder: Path) -> tuple[dict[str, tuple[list[int], list[float]]], float | None]:
    """Curves of a training and the time it took, from its TensorBoard files (one for each time it was started).

    Returns:
        tag -> (steps, values), and the seconds of its steps; empty and None when there are no files. Where `Monitor`
        did not count them, they are those between first and last value, with validation and what was done twice.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[str, dict[int, float]] = {}
    seconds = 0.0
    files = sorted(folder.glob("events.out.tfevents.*"))
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        times = []
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                points.setdefault(tag, {})[event.step] = event.value
                times.append(event.wall_time)
        seconds += max(times) - events.FirstEventTimestamp() if times else 0.0
    curves = {tag: (sorted(series), [series[step] for step in sorted(series)]) for tag, series in points.items()}
    if counted := curves.get("speed/training_seconds"):
        seconds = counted[1][-1]
    return curves, seconds if files else None


def device_of(name: str) -> str:
    """The device that "auto", "cpu" or "cuda" stands for.

    Raises:
        ValueError: another name, or a device that is not there.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"`device` (={name!r}) must be 'auto', 'cpu' or 'cuda'.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("`device` (='cuda'): there is no CUDA device; take 'cpu' or 'auto'.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
