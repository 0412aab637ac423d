"""Plots of a comparison: error versus cost, error versus size of the training set, and rollouts with bands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cliffsteer import comparison
from cliffsteer.comparison import Group
from cliffsteer.intervals import Estimate, estimate
from cliffsteer.plotting import COLOURS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = Callable[[Mapping[str, Any]], float | None]
_MARKERS = "osD^vP*X"


def cost_figure(groups: Sequence[Group]) -> Figure | None:
    """Error versus operations of a sample, and versus time of training; None where neither is known.

    Bars are 95 % confidence intervals over seeds.
    """
    costs = {"FLOPs of a step of one sample": comparison.flops, "time of training [s]": comparison.training_seconds}
    costs = {title: value for title, value in costs.items() if any(g.estimate(value) for g in groups)}
    parts = _parts(groups)
    if not costs:
        return None
    figure = _figure(4.6 * len(costs) + 1.6, 3.2 * len(parts))
    axes = figure.subplots(len(parts), len(costs), squeeze=False)
    for row, (word, part) in zip(axes, parts.items(), strict=True):
        for cell, (title, value) in zip(row, costs.items(), strict=True):
            for i, group in enumerate(groups):
                cost, error = group.estimate(value), group.estimate(comparison.error(part))
                if cost is not None and error is not None:
                    cell.errorbar(cost.mean, error.mean, _bars([error]), label=group.label, **_point(i))
            _finish(cell, title, f"NRMSE, {word}")
    _legend(figure, axes.flat)
    return figure


def data_figure(groups: Sequence[Group]) -> Figure | None:
    """Error versus number of training trajectories, a line per series; None where fewer than two numbers are known."""
    sizes = {g.label: comparison.training_trajectories(g.runs[0].metrics) for g in groups}
    if len({n for n in sizes.values() if n is not None}) < 2:
        return None
    parts = _parts(groups)
    figure = _figure(4.6 * len(parts) + 1.6, 3.4)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for cell, (word, part) in zip(axes, parts.items(), strict=True):
        for i, series in enumerate(dict.fromkeys(g.series for g in groups)):
            points = sorted(
                (sizes[g.label], error.mean, error)
                for g in groups
                if g.series == series and sizes[g.label] is not None and (error := g.estimate(comparison.error(part)))
            )
            if points:
                numbers, means, errors = zip(*points, strict=True)
                style = _point(i) | {"linestyle": DASHES[i % len(DASHES)]}
                cell.errorbar(numbers, means, _bars(errors), label=series, **style)
        _finish(cell, "training trajectories", f"NRMSE, {word}")
    _legend(figure, axes)
    return figure


def rollout_figure(groups: Sequence[Group], dt: float, unit: str = "s") -> Figure | None:
    """Errors of rollouts over time, the mean over seeds with its 95 % confidence band; None without rollouts.

    Args:
        groups: the groups.
        dt: time of a step.
        unit: of time.
    """
    if "rollout" not in groups[0].runs[0].metrics:
        return None
    figure = _figure(6.6, 4.0)
    axes = figure.subplots()
    still = groups[0].runs[0].metrics["rollout"]["persistence"]["overall"]["nrmse"]
    for i, group in enumerate(groups):
        curves = [run.metrics["rollout"]["model"]["overall"]["nrmse"] for run in group.runs]
        points = [estimate(values) for values in zip(*curves, strict=True)]
        time = dt * np.arange(1, len(points) + 1)
        means = np.array([math.nan if p is None else p.mean for p in points])
        line = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
        axes.plot(time, means, label=group.label, marker=_MARKERS[i % len(_MARKERS)], markersize=3, **line)
        half = np.array([math.nan if p is None or p.half is None else p.half for p in points])
        axes.fill_between(time, np.maximum(means - half, 1e-3 * means), means + half, color=line["color"], alpha=0.15)
    time = dt * np.arange(1, len(still) + 1)
    axes.plot(time, [v or math.nan for v in still], label="persistence", color="0.5", linewidth=1)
    _finish(axes, f"time [{unit}]", "NRMSE, mean over fields", logarithmic="y")
    axes.legend(fontsize=8, frameon=False)
    return figure


# ----------------------------------------------------------------------------------------------------- private


def _parts(groups: Sequence[Group]) -> dict[str, str]:
    metrics = groups[0].runs[0].metrics
    parts = {"one step": "one_step"}
    return parts | ({f"{metrics['rollout']['steps']} steps": "rollout"} if "rollout" in metrics else {})


def _bars(errors: Sequence[Estimate]) -> list[list[float]]:
    """Bars below and above the means; below not further than the logarithmic axis can show."""
    halves = [(e.mean, e.half or 0.0) for e in errors]
    return [[min(half, 0.999 * mean) for mean, half in halves], [half for _, half in halves]]


def _point(i: int) -> dict[str, Any]:
    marker = _MARKERS[i % len(_MARKERS)]
    return {"color": COLOURS[i % len(COLOURS)], "marker": marker, "linestyle": "none", "capsize": 3, "markersize": 6}


def _finish(axes: Any, x: str, y: str, logarithmic: str = "xy") -> None:
    """Labels and grid; an axis is logarithmic where its values span more than a factor of three."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

    large = EngFormatter(sep="")
    formatter = FuncFormatter(lambda value, place: large(value, place) if abs(value) >= 1000 else f"{value:.4g}")
    axes.set(xlabel=x, ylabel=y)
    for name in logarithmic:
        axis, limits = getattr(axes, f"{name}axis"), axes.dataLim.intervalx if name == "x" else axes.dataLim.intervaly
        axis.set_major_formatter(formatter)
        if 0 < 3 * limits[0] < limits[1]:
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(formatter)
    axes.grid(True, alpha=0.25)


def _legend(figure: Figure, axes: Any) -> None:
    """One legend beside all panels, with every label of any of them."""
    found: dict[str, Any] = {}
    for cell in axes:
        handles, labels = cell.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    if found:
        figure.legend(list(found.values()), list(found), loc="outside right upper", fontsize=8, frameon=False)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")
