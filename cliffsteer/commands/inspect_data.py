"""``cliffsteer inspect data``: pictures, an animation, spectra, conserved quantities and statistics of a dataset."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.datasets import TrajectoryDataset, read_manifest
from cliffsteer.datasets.inspection import inspect_dataset


def data(config: DictConfig) -> None:
    """Look at one split of a dataset; write a table to stdout, and pictures and JSON to a folder.

    Raises:
        UsageError: no dataset was named.
        FileNotFoundError, ValueError: there is none, it is damaged, or it has no such split, trajectory or field.
    """
    if config.root is None:
        raise UsageError("`root` is missing: give it as `cliffsteer inspect data root=...`.")
    split = config.split if config.split is not None else next(iter(read_manifest(config.root).shards))
    trajectories = TrajectoryDataset(config.root, split)
    default = str(Path("runs") / f"data-{Path(config.root).resolve().name}")
    out = output_folder(config if config.out is not None else OmegaConf.create({"out": default}))
    result = inspect_dataset(trajectories, out, config.trajectory, config.field)
    sys.stdout.write(_text(trajectories, result, out))


def _text(trajectories: TrajectoryDataset, result: dict[str, Any], out: Path) -> str:
    spec = trajectories.spec
    lines = [
        f"{trajectories.root}, split {trajectories.split}: {result['trajectories']} trajectories of {result['frames']}"
        f" frames, {trajectories.dt:g} {trajectories.manifest.time_unit} apart, on"
        f" {' x '.join(map(str, trajectories.grid.shape))} cells",
        "",
        f"{'field':24} {'unit':>10} {'mean':>11} {'deviation':>11} {'lowest':>11} {'highest':>11} {'change':>11}",
    ]
    for name, numbers in result["fields"].items():
        shown = (numbers[key] for key in ("mean", "deviation", "low", "high", "change"))
        cells = " ".join(f"{'' if value is None else format(value, '.4g'):>11}" for value in shown)
        lines.append(f"{name:24} {spec[name].unit:>10} {cells}")
    lines += ["", f"{'drift over a trajectory':35} {'mean':>11} {'largest':>11}"]
    lines += [f"{name:35} {d['mean']:11.1e} {d['largest']:11.1e}" for name, d in result["drifts"].items()]
    return "\n".join([*lines, "", f"{', '.join(result['files'])} and inspection.json are in {out}", ""])
