"""Pictures of couplings: where guards tripped, and the spectra of a long rollout beside the solver's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cliffsteer.coupling.guarded import Guarded
from cliffsteer.datasets.spectra import isotropic_spectra
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.plotting import COLOURS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECADES = 1e-9
"""The lowest energy that is shown, over the highest."""


def guard_figure(guarded: Guarded) -> Figure:
    """When and where guards tripped.

    Left a row for each guard, with a mark at every step at which it tripped, for every sample of the batch; right the
    cells where the rejected frames were farthest from the solver's, along the first two axes of the grid.

    Args:
        guarded: after a rollout.
    """
    from matplotlib.figure import Figure

    names, grid = [guard.name for guard in guarded.guards], guarded.grid
    figure = Figure(figsize=(9.5, max(2.8, 1.2 + 0.3 * len(names))), layout="constrained")
    when, where = figure.subplots(1, 2, width_ratios=(2, 1))
    for row, name in enumerate(names):
        colour = COLOURS[row % len(COLOURS)]
        events = [event for event in guarded.events if event.guard == name]
        when.plot([event.step for event in events], [row] * len(events), "x", color=colour)
        cells = np.array([event.cell for event in events], dtype=float).reshape(len(events), grid.dim)
        across = cells[:, 1] if grid.dim > 1 else np.zeros(len(events))
        where.plot(cells[:, 0], across, "x", color=colour)
    when.set_yticks(range(len(names)), names)
    when.set_ylim(len(names) - 0.5, -0.5)
    when.set_xlim(left=-0.5)
    when.set_xlabel("step")
    where.set(xlim=(-0.5, grid.shape[0] - 0.5), xlabel="cell, axis 1", title="farthest from the solver")
    where.title.set_fontsize(9)
    where.set(ylim=(-0.5, (grid.shape[1] if grid.dim > 1 else 1) - 0.5), ylabel="cell, axis 2" if grid.dim > 1 else "")
    when.set_title(
        f"{guarded.counts['surrogate']} frames of the surrogate, {guarded.counts['rejected']} rejected,"
        f" {guarded.counts['handed back']} handed back",
        fontsize=9,
    )
    when.grid(axis="x", alpha=0.3)
    return figure


def last_part(frames: Tensor) -> Tensor:
    """The last quarter of frames (time, blade, *grid), at least one."""
    return frames[-max(1, len(frames) // 4) :]


def spectra_of(spec: FieldSpec, grid: Grid, frames: Mapping[str, Tensor]) -> dict[str, Any]:
    """Spectra of the last quarter of rollouts, and energies of all of their frames.

    Args:
        spec: the fields.
        grid: their grid.
        frames: for each label frames (time, blade, *grid).

    Returns:
        JSON-ready: "wave_numbers", and "spectra" and "energies": field -> label -> list (None for what is not finite).
    """
    spectra: dict[str, dict[str, list[float | None]]] = {field.name: {} for field in spec.dynamic}
    energies: dict[str, dict[str, list[float | None]]] = {field.name: {} for field in spec.dynamic}
    for label, sequence in frames.items():
        waves, found = isotropic_spectra(spec, grid, last_part(sequence)[None])
        for name, values in spec.unpack(sequence[None].double()).items():
            spectra[name][label] = _plain(found[name][0].mean(0))
            energies[name][label] = _plain(values[0].square().sum(1).flatten(1).mean(1).numpy())
    return {"wave_numbers": _plain(waves), "spectra": spectra, "energies": energies}


def spectra_figure(found: Mapping[str, Any], dt: float, unit: str = "m", time_unit: str = "s") -> Figure:
    """Spectra of the last quarter of rollouts, and energies over time: a row for each field.

    Args:
        found: what `spectra_of` gave; the first label is the solver.
        dt: time between frames.
        unit: of lengths.
        time_unit: of times.
    """
    from matplotlib.figure import Figure

    names = list(found["spectra"])
    figure = Figure(figsize=(9.0, 3.2 * len(names)), layout="constrained")
    waves = np.array(found["wave_numbers"])[1:]
    for row, name in zip(figure.subplots(len(names), 2, squeeze=False), names, strict=True):
        highest = 0.0
        for i, label in enumerate(found["spectra"][name]):
            style = {"color": COLOURS[i], "linestyle": DASHES[i], "label": label}
            energy = np.array(found["spectra"][name][label], dtype=float)[1:]
            energy = np.where(energy > 0, energy, np.nan)
            highest = max(highest, np.nanmax(energy, initial=0.0) if i == 0 else 0.0)
            row[0].plot(waves, energy, **style)
            over_time = np.array(found["energies"][name][label], dtype=float)
            row[1].plot(dt * np.arange(1, len(over_time) + 1), np.where(over_time > 0, over_time, np.nan), **style)
        row[0].set(xlabel=f"wave number [rad/{unit}]", ylabel="energy", title=f"{name}: last quarter of the frames")
        row[1].set(xlabel=f"time [{time_unit}]", ylabel="mean square", title=name, yscale="log")
        row[0].set(xscale="log", yscale="log")
        if highest:
            row[0].set_ylim(max(DECADES * highest, row[0].get_ylim()[0]), 1e2 * highest)
        for panel in row:
            panel.title.set_fontsize(9)
            panel.grid(alpha=0.25)
        row[0].legend(fontsize=8, frameon=False)
    return figure


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
