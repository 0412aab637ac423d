"""Run folders, as the verbs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cliffsteer import solvers
from cliffsteer.coupling import Repeated
from cliffsteer.datasets import TrajectoryDataset, read_manifest
from cliffsteer.report import Entry
from cliffsteer.stepper import Stepper
from cliffsteer.surrogate import Surrogate, read_config


def surrogate_folder(run: str | Path) -> Path:
    """The folder of the saved surrogate of a run; the run itself when `Surrogate.save_pretrained` wrote it.

    Raises:
        FileNotFoundError: no such run, or its training has not finished.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(
            f"`run` (={run}) does not exist: give the folder of a run; `cliffsteer info` lists them."
        )
    folder = run if (run / "model.safetensors").is_file() else run / "surrogate"
    if not folder.is_dir():
        unfinished = (run / "checkpoints").is_dir()
        hint = "its training has not finished, the same `cliffsteer train` goes on" if unfinished else "give a run"
        raise FileNotFoundError(f"`run` (={run}) holds no surrogate: {hint}.")
    return folder


def load_surrogate(run: str | Path, device: str = "auto") -> Surrogate:
    """The surrogate of a run, or of a folder written by `Surrogate.save_pretrained`.

    Raises:
        FileNotFoundError: no such run, or its training has not finished.
        ValueError: a surrogate of another version or a damaged one, or a device that is not there.
    """
    return Surrogate.from_pretrained(surrogate_folder(run), _device(device))


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


def solver_of(trajectories: TrajectoryDataset) -> Stepper:
    """The solver that made a dataset, with the time step of its frames."""
    recipe = trajectories.manifest.recipe
    solver = solvers.create(recipe.solver, **recipe.options)
    return solver if recipe.every == 1 else Repeated(solver, recipe.every)


def read_metrics(run: str | Path) -> dict[str, Any]:
    """What ``cliffsteer evaluate`` wrote about a run.

    Raises:
        FileNotFoundError: the run was not evaluated.
        ValueError: the file is damaged.
    """
    path = Path(run) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `cliffsteer evaluate run={run}` makes it.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): `cliffsteer evaluate run={run}` makes it again.") from error


def read_entry(run: str | Path) -> Entry:
    """An evaluated run, as the report takes it; errors as `load_surrogate` and `read_metrics`."""
    run = Path(run)
    scalars, seconds = read_scalars(run / "tensorboard")
    return Entry(run.name, load_surrogate(run), read_metrics(run), scalars, seconds)


def read_scalars(folder: Path) -> tuple[dict[str, tuple[list[int], list[float]]], float | None]:
    """Curves of a training and the time it took, from its TensorBoard files (one for each time it was started).

    Returns:
        tag -> (steps, values), and seconds; empty and None when there are no files.
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
    return curves, seconds if files else None


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"`device` (={name!r}) must be 'auto', 'cpu' or 'cuda'.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("`device` (='cuda'): there is no CUDA device; take 'cpu' or 'auto'.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
