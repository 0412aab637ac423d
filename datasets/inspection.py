"""Looking at a dataset: pictures, an animation, spectra, what the evolution keeps, and statistics of one split."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cliffsteer.datasets.files import write_bytes
from cliffsteer.datasets.pictures import contact_sheet
from cliffsteer.datasets.spectra import isotropic_spectra
from cliffsteer.datasets.summary import Summary, find_solver, summarize
from cliffsteer.datasets.windows import TrajectoryDataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 6  # frames of the picture
_SPECTRA = 16  # trajectories whose spectra are averaged


def inspect_dataset(
    trajectories: TrajectoryDataset, out: str | Path, trajectory: int = 0, field: str | None = None
) -> dict[str, Any]:
    """Look at a split and write what is seen.

    Files in ``out``: ``frames.png`` (some frames of one trajectory), ``animation.gif`` (one field of it; on grids of
    two or more axes), ``spectra.png`` (isotropic spectra of the first, middle and last frame, averaged over up to 16
    trajectories), ``kept.png`` (drift of totals, of squares and of what the solver says to be conserved) and
    ``inspection.json`` (the numbers returned).

    Args:
        trajectories: the split.
        out: a folder; made if it is not there.
        trajectory: the one that is shown.
        field: the field of the animation; the first by default.

    Returns:
        JSON-ready: "split", "trajectories", "frames", "dt", "fields" (statistics of each), "drifts" (mean and largest
        drift of each quantity), "spectra" ("k", and for each field a row per moment), "files".

    Raises:
        ValueError: no such trajectory or field, or damaged data.
        OSError: the folder cannot be written.
    """
    spec, grid, manifest = trajectories.spec, trajectories.grid, trajectories.manifest
    if not 0 <= trajectory < trajectories.n_trajectories:
        raise ValueError(
            f"`trajectory` (={trajectory}) is not in 0..{trajectories.n_trajectories - 1}, those of split"
            f" {trajectories.split!r}."
        )
    field = spec.dynamic[0].name if field is None else field
    if spec[field].role != "dynamic":
        raise ValueError(f"`field` (={field!r}) is a parameter: only fields that evolve can be animated.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    summary = summarize(trajectories, find_solver(manifest))
    frames = trajectories.read(trajectory)
    moments = sorted({round(i * (len(frames) - 1) / (_SHOWN - 1)) for i in range(_SHOWN)})
    times = [f"t = {manifest.start + i * manifest.dt:.4g} {manifest.time_unit}" for i in moments]
    contact_sheet(spec, frames[moments], times).save(out / "frames.png")
    files = ["frames.png", "spectra.png", "kept.png"]
    if grid.dim > 1:
        from cliffsteer.plotting import save_animation

        save_animation(out / "animation.gif", spec, grid, {field: frames}, manifest.dt, field, width=3.4)
        files.insert(1, "animation.gif")
    k, spectra = _mean_spectra(trajectories)
    spectra_figure(trajectories, k, spectra).savefig(out / "spectra.png")
    kept_figure(trajectories, summary).savefig(out / "kept.png")
    result = {
        "split": trajectories.split,
        "trajectories": trajectories.n_trajectories,
        "frames": trajectories.n_frames,
        "dt": trajectories.dt,
        "fields": {name: dataclasses.asdict(numbers) for name, numbers in summary.fields.items()},
        "drifts": {name: {"mean": mean, "largest": largest} for name, (mean, largest) in summary.drifts.items()},
        "spectra": {"k": k.tolist()} | {name: rows.tolist() for name, rows in spectra.items()},
        "files": files,
    }
    write_bytes(out / "inspection.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def spectra_figure(trajectories: TrajectoryDataset, k: np.ndarray, spectra: dict[str, np.ndarray]) -> Figure:
    """A panel per field: its spectrum at the first, middle and last frame; the dotted line is the grid's limit, π/h."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    manifest, unit = trajectories.manifest, trajectories.grid.unit[-1]
    figure, panels = _panels(len(spectra))
    for axes, (name, rows) in zip(panels, spectra.items(), strict=True):
        for i, (moment, row) in enumerate(zip(_moments(trajectories), rows, strict=True)):
            time = f"t = {manifest.start + moment * manifest.dt:.4g} {manifest.time_unit}"
            shown = (k > 0) & (row > 1e-12 * max(rows.max(), 1e-300))
            axes.plot(k[shown], row[shown], label=time, **_line(i))
        nyquist = math.pi / max(trajectories.grid.spacing)
        axes.axvline(nyquist, color="black", linewidth=0.8, linestyle=":")
        squared = "" if manifest.spec[name].unit in ("", "1") else f"({manifest.spec[name].unit})² "
        axes.set(
            xscale="log", yscale="log", title=name, xlabel=f"wave number [rad/{unit}]", ylabel=f"E [{squared}{unit}]"
        )
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _finish(axes)
    return figure


def kept_figure(trajectories: TrajectoryDataset, summary: Summary) -> Figure:
    """How totals, squares and the solver's own quantities move away from their first values: one line each.

    The line is the largest distance over all trajectories at each time, relative to the largest size that the quantity
    could have in its trajectory.
    """
    figure, (axes,) = _panels(1, 6.4)
    time = trajectories.manifest.start + trajectories.dt * np.arange(trajectories.n_frames)
    for i, (name, numbers) in enumerate(summary.histories.items()):
        moved = np.abs(numbers - numbers[:, :1])
        largest = moved.max(1, keepdims=True)
        share = np.divide(moved, largest, out=np.zeros_like(moved), where=largest > 0)
        drift = summary.trajectory_drifts[name][:, None] * share
        axes.plot(time, drift.max(0), label=name, **_line(i))
    axes.set(xlabel=f"time [{trajectories.manifest.time_unit}]", ylabel="relative drift")
    axes.set_yscale("symlog", linthresh=1e-8)
    _finish(axes)
    return figure


def _mean_spectra(trajectories: TrajectoryDataset) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    moments, sums = _moments(trajectories), {}
    count = min(_SPECTRA, trajectories.n_trajectories)
    for i in range(count):
        frames = torch.cat([trajectories.read(i, moment, moment + 1) for moment in moments])
        k, spectra = isotropic_spectra(trajectories.spec, trajectories.grid, frames[None])
        for name, rows in spectra.items():
            sums[name] = sums.get(name, 0.0) + rows[0] / count
    return k, sums


def _moments(trajectories: TrajectoryDataset) -> list[int]:
    return sorted({0, trajectories.n_frames // 2, trajectories.n_frames - 1})


def _panels(count: int, width: float = 4.2) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, 3.4), dpi=100, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _line(i: int) -> dict[str, Any]:
    from cliffsteer.plotting import COLOURS, DASHES

    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.5}


def _finish(axes: Any) -> None:
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
