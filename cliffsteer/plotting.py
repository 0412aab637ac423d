"""Figures: panels of fields, error and loss curves, and animations.

Every function returns a ``matplotlib.figure.Figure`` (or writes a GIF) and touches no global state of matplotlib, which
is imported on first use. Colours are safe for colour-blind readers (Okabe-Ito lines, viridis and cividis images), each
line has its own dash as well, and all panels of one field share one colour scale, so they can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, in the order in which curves take them."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 3)), (0, (1, 1)))
_ARROWS = 16  # arrows along the longer side of a vector panel


def field_panels(
    spec: FieldSpec, grid: Grid, frames: Mapping[str, Tensor], errors: Mapping[str, Tensor] | None = None
) -> Figure:
    """Images of one moment: a row per dynamic field, a column per label.

    A scalar (or pseudoscalar) is an image of its value, any other field an image of its magnitude √(Σ cᵢ²), with arrows
    when it is a vector. Of grids with more than two axes the middle slice of the later axes is shown.

    Args:
        spec: the fields.
        grid: their grid, of at least two axes.
        frames: for each label (e.g. "truth", "prediction") one frame, (blade, *grid); the first sets the colour scale.
        errors: like frames, e.g. prediction − truth; they share a scale of their own, symmetric for scalars.

    Raises:
        ValueError: no frames, a frame of another shape, or a grid with one axis.

    Example:
        >>> spec, grid = FieldSpec((1, 1), [Field("velocity", 1, "m/s")]), Grid((8, 8))
        >>> figure = field_panels(spec, grid, {"truth": torch.randn(4, 8, 8)})
    """
    errors = dict(errors or {})
    labels = [*frames, *errors]
    if not frames:
        raise ValueError("`frames` is empty: give at least one labelled frame, (blade, *grid).")
    if grid.dim < 2:
        raise ValueError(f"`grid` (={grid.shape}) has one axis: images need two.")
    for label, frame in (frames | errors).items():
        if tuple(frame.shape) != (spec.n_blades, *grid.shape):
            raise ValueError(f"`{label}` has shape {tuple(frame.shape)}, expected {(spec.n_blades, *grid.shape)}.")
    figure = _figure(2.9 * len(labels) + 0.8, 2.7 * len(spec.dynamic))
    axes = figure.subplots(len(spec.dynamic), len(labels), squeeze=False)
    for row, field in zip(axes, spec.dynamic, strict=True):
        for group, diverging in ((frames, False), (errors, True)):
            planes = {label: _plane(spec, field, frame) for label, frame in group.items()}
            if not planes:
                continue
            style = _scale(list(planes.values()) if diverging else [planes[labels[0]]], diverging)
            cells = row[: len(frames)] if group is frames else row[len(frames) :]
            for cell, (label, plane) in zip(cells, planes.items(), strict=True):
                image = _draw(cell, grid, plane, style, field.grade == 1)
                cell.set_title(f"{field.name}: {label}", fontsize=9)
            figure.colorbar(image, ax=list(cells), label=_quantity(spec, field), shrink=0.9, pad=0.02)
        row[0].set_ylabel(_length(grid, 1))
    for cell in axes[-1]:
        cell.set_xlabel(_length(grid, 0))
    return figure


def error_curves(curves: Mapping[str, Sequence[float]], dt: float, title: str = "", unit: str = "s") -> Figure:
    """Error of rollouts over time, one line per label, on a logarithmic axis of at most three decades.

    Args:
        curves: label -> error after 1, 2, ... steps (dimensionless, e.g. normalised RMSE).
        dt: time of a step, in ``unit``.
        title: heading of the figure.
        unit: unit of time.
    """
    figure = _figure(6.0, 3.6)
    axes = figure.subplots()
    for i, (label, values) in enumerate(curves.items()):
        values = np.asarray(values, dtype=float)
        time = dt * np.arange(1, len(values) + 1)
        marker = "o" if len(values) <= 30 else None
        axes.plot(time, np.where(values > 0, values, np.nan), label=label, marker=marker, markersize=3, **_line(i))
    axes.set(xlabel=f"time [{unit}]", ylabel="normalised RMSE", title=title, yscale="log")
    shown = [value for values in curves.values() for value in values if math.isfinite(value) and value > 0]
    if shown and min(shown) < 1e-3 * max(shown):
        axes.set_ylim(bottom=1e-3 * max(shown))
    _finish(axes)
    return figure


def correlation_curves(curves: Mapping[str, Sequence[float]], dt: float, title: str = "", unit: str = "s") -> Figure:
    """Correlation of rollouts with the truth over time, one line per label, with the thresholds of `CorrelationTime`.

    Args:
        curves: label -> correlation after 1, 2, ... steps.
        dt: time of a step, in ``unit``.
        title: heading of the figure.
        unit: unit of time.
    """
    from cliffsteer.metrics.correlation import THRESHOLDS

    figure = _figure(6.0, 3.6)
    axes = figure.subplots()
    for i, (label, values) in enumerate(curves.items()):
        axes.plot(dt * np.arange(len(values) + 1), [1.0, *values], label=label, **_line(i))
    for threshold in THRESHOLDS:
        axes.axhline(threshold, color="0.6", linewidth=0.8)
    lowest = min((value for values in curves.values() for value in values if math.isfinite(value)), default=0.0)
    axes.set(xlabel=f"time [{unit}]", ylabel="correlation", title=title, ylim=(min(0.7, lowest) - 0.03, 1.03))
    _finish(axes)
    return figure


def loss_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str = "") -> Figure:
    """Losses during training, one line per label, on a logarithmic axis.

    Args:
        curves: label -> (optimiser steps, losses).
        title: heading of the figure.
    """
    figure = _figure(6.0, 3.6)
    axes = figure.subplots()
    for i, (label, (steps, losses)) in enumerate(curves.items()):
        losses = np.asarray(losses, dtype=float)
        axes.plot(np.asarray(steps), np.where(losses > 0, losses, np.nan), label=label, **_line(i))
    axes.set(xlabel="optimiser step", ylabel="loss", title=title, yscale="log")
    _finish(axes)
    return figure


def save_animation(
    path: str | Path,
    spec: FieldSpec,
    grid: Grid,
    sequences: Mapping[str, Tensor],
    dt: float,
    field: str | None = None,
    frames_per_second: float = 6,
    width: float = 2.6,
) -> Path:
    """Write an endless GIF of one field, the labels side by side on one colour scale, that of the first.

    Args:
        path: the file to write.
        spec: the fields.
        grid: their grid, of at least two axes.
        sequences: label -> frames, (time, blade, *grid); the shortest one sets the length.
        dt: time between frames, s.
        field: the field shown; the first dynamic one by default.
        frames_per_second: speed.
        width: width of a panel, inches at 80 dots an inch.

    Raises:
        ValueError: an unknown or parameter field, or no frames.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    shown = spec[field or spec.dynamic[0].name]
    if shown.role != "dynamic":
        raise ValueError(f"`field` (={field!r}) is a parameter: only fields that evolve can be animated.")
    length = min((len(frames) for frames in sequences.values()), default=0)
    if not length:
        raise ValueError("`sequences` holds no frames: give (time, blade, *grid) for at least one label.")
    planes = {label: [_plane(spec, shown, frame) for frame in frames[:length]] for label, frames in sequences.items()}
    style = _scale(next(iter(planes.values())), False)
    figure = _figure(width * len(planes) + 0.9, width + 0.35, dpi=80)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(planes), squeeze=False)[0]
    images: list[Any] = []
    for moment in range(length):
        for cell, (label, series) in zip(axes, planes.items(), strict=True):
            cell.clear()
            image = _draw(cell, grid, series[moment], style, shown.grade == 1)
            cell.set(title=label, xticks=[], yticks=[])
        if moment == 0:
            figure.colorbar(image, ax=list(axes), label=_quantity(spec, shown), shrink=0.9, pad=0.02)
        figure.suptitle(f"t = {moment * dt:.3g} s", fontsize=9, x=0.02, y=0.98, ha="left")
        canvas.draw()
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(128))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 / frames_per_second, loop=0)
    return path


# ---------------------------------------------------------------------------------------------------- private


def _figure(width: float, height: float, dpi: int = 100) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def _line(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.6}


def _finish(axes: Any) -> None:
    axes.grid(True, which="both", alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)


def _plane(spec: FieldSpec, field: Field, frame: Tensor) -> np.ndarray:
    """Components of a field on the first two axes, (component, X1, X2)."""
    slot = spec.slots[field.name]
    values = frame[slot.start : slot.stop].detach().to("cpu", torch.float32)
    while values.ndim > 3:
        values = values[..., values.shape[-1] // 2]
    return values.numpy()


def _scale(planes: Sequence[np.ndarray], diverging: bool) -> dict[str, Any]:
    """Colour map and limits that all panels share; NaN and infinity do not stretch it."""
    vector = len(planes[0]) > 1
    values = np.concatenate([(_magnitude(plane) if vector else plane).ravel() for plane in planes])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if vector:
        return {"cmap": "cividis" if diverging else "viridis", "vmin": 0.0, "vmax": high or 1.0}
    if diverging or low < -0.05 * high:
        limit = max(abs(low), abs(high)) or 1.0
        return {"cmap": "PuOr" if diverging else "RdBu_r", "vmin": -limit, "vmax": limit}
    return {"cmap": "viridis", "vmin": min(low, 0.0), "vmax": high if high > low else low + 1.0}


def _magnitude(plane: np.ndarray) -> np.ndarray:
    return np.sqrt((plane**2).sum(0))


def _draw(axes: Any, grid: Grid, plane: np.ndarray, style: dict[str, Any], arrows: bool) -> Any:
    """Image of a field on axes; axis 0 of the grid runs to the right, axis 1 upwards."""
    (lx, ly), (nx, ny) = grid.extent[:2], plane.shape[1:]
    values = plane[0] if len(plane) == 1 else _magnitude(plane)
    image = axes.imshow(values.T, origin="lower", extent=(0, lx, 0, ly), interpolation="nearest", **style)
    axes.tick_params(labelsize=7)
    if arrows:
        step = max(1, -(-max(nx, ny) // _ARROWS))
        x, y = (torch.arange(n).numpy()[step // 2 :: step] for n in (nx, ny))
        u, v = (component[np.ix_(x, y)].T for component in plane[:2])
        position = ((x + 0.5) * lx / nx, (y + 0.5) * ly / ny)
        scale = style["vmax"] / (1.5 * step * lx / nx)
        axes.quiver(*position, u, v, angles="xy", scale_units="xy", scale=scale, color="white", width=0.006)
        axes.set(xlim=(0, lx), ylim=(0, ly))
    return image


def _quantity(spec: FieldSpec, field: Field) -> str:
    name = field.name if spec.slots[field.name].size == 1 else f"|{field.name}|"
    return name if field.unit in ("", "1") else f"{name} [{field.unit}]"


def _length(grid: Grid, axis: int) -> str:
    return f"{'xyzw'[axis]} [{grid.unit[axis]}]"
