"""The figure of `cliffsteer.diagnostics.diagnose`: a heat map of layers and group elements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cliffsteer.plotting import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOWEST = -16  # decade: rounding of float64
_CELL = (0.34, 0.21)  # inches
_GAP, _LEAST = 0.7, 3.4  # between groups of columns, and their least width, in cells


def equivariance_figure(result: Mapping[str, Any], title: str = "") -> Figure:
    """A row for each layer, a column for each element, coloured by the decade of the relative error.

    Dark is rounding, bright is broken; grey was not measured. Columns stand in groups: symmetries of the grid, those
    that it lacks, translations, what is left of them away from the walls, rotations and boosts of pointwise layers and
    of kernels as functions, the same of the sampled kernels, and the grid's symmetries in float32. The names of layers
    that break a symmetry of the grid are orange, those of elements that the grid lacks grey.

    Args:
        result: what `diagnose` returns, or its JSON file.
        title: heading.
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rows, groups = result["layers"], _groups(result)
    starts, position = [], 0.0
    for _, labels, _ in groups:
        starts.append(position)
        position += max(len(labels), _LEAST) + _GAP
    width = position - _GAP
    size = (_CELL[0] * width + 3.6, _CELL[1] * len(rows) + 2.9)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("white")
    norm, image = Normalize(_LOWEST, 0), None
    for start, (heading, labels, errors) in zip(starts, groups, strict=True):
        decades = np.array([[_decade(e) for e in row] for row in errors]).reshape(len(rows), len(labels))
        extent = (start, start + len(labels), len(rows), 0)
        axes.fill_between([start, start + len(labels)], 0, len(rows), color="#ececec", linewidth=0, zorder=0)
        image = axes.imshow(
            np.ma.masked_invalid(decades), extent=extent, norm=norm, cmap="viridis", aspect="auto", zorder=1
        )
        for (i, j), decade in np.ndenumerate(decades):
            if math.isfinite(decade):
                colour = "black" if decade > -5 else "white"
                place = start + j + 0.5, i + 0.5
                axes.text(*place, _number(errors[i][j]), ha="center", va="center", fontsize=5.5, color=colour)
        axes.hlines(range(1, len(rows)), start, start + len(labels), color="white", linewidth=0.6, zorder=2)
        axes.text(start, -0.45, heading, ha="left", va="bottom", fontsize=7, weight="bold", linespacing=1.1)
    axes.set(xlim=(0, width), ylim=(len(rows), -2.5))
    axes.set_xticks(
        [start + i + 0.5 for start, group in zip(starts, groups, strict=True) for i in range(len(group[1]))],
        [label for group in groups for label in group[1]],
        rotation=90,
        fontsize=7,
    )
    axes.set_yticks([i + 0.5 for i in range(len(rows))], [_row_label(row) for row in rows], fontsize=7)
    for label in axes.get_xticklabels():
        if label.get_text() in {g["name"] for g in result["elements"] if g["missing"]}:
            label.set_color("#8a8a8a")
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row["cause"] not in ("exact", "untested"):
            label.set(color=COLOURS[1], weight="bold")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01, label="relative error")
    ticks = range(_LOWEST, 1, 4)
    bar.set_ticks(list(ticks), labels=[f"$10^{{{tick}}}$" for tick in ticks])
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    figure.suptitle(title or "Equivariance, layer by layer", fontsize=10, weight="bold")
    figure.supxlabel(
        f"Measured on {result['input']}. Numbers: the error from 0.01 on, else its decade; a dot is no error at all.",
        fontsize=7,
    )
    return figure


# ---------------------------------------------------------------------------------------------------- private


def _groups(result: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[float | None]]]]:
    """Heading, column labels and errors (layer, column) of each group that has a column."""
    rows, elements = result["layers"], result["elements"]
    kernels = {kernel["name"]: kernel for kernel in result["kernels"]}
    names, nothing = [g["name"] for g in result["turns"]], [None] * len(result["turns"])
    own = [i for i, g in enumerate(elements) if not g["translation"] and g["missing"] is None]
    lacking = [i for i, g in enumerate(elements) if not g["translation"] and g["missing"] is not None]
    shifts = [i for i, g in enumerate(elements) if g["translation"]]

    def of(key: str, chosen: Sequence[int]) -> tuple[list[str], list[list[float | None]]]:
        return [elements[i]["name"] for i in chosen], [[row[key][i] for i in chosen] for row in rows]

    def of_kernel(row: Mapping[str, Any], key: str) -> list[float | None]:
        return kernels.get(row["name"], {}).get(key) or nothing

    interior = [[row["worst"][f"{kind} interior"] for kind in ("symmetries", "translations")] for row in rows]
    groups = [
        ("symmetries\nof the grid", *of("float64", own)),
        ("symmetries that\nthe grid lacks", *of("float64", lacking)),
        ("translations", *of("float64", shifts)),
        ("largest away\nfrom the walls", ["symmetries", "translations"], interior),
        ("rotations, boosts\n(as functions)", names, [row["turns"] or of_kernel(row, "function") for row in rows]),
        ("the same\n(sampled kernel)", names, [of_kernel(row, "sampled") for row in rows]),
        ("symmetries of the\ngrid, float32", *of("float32", own)),
    ]
    return [group for group in groups if group[1]]


def _decade(error: float | None) -> float:
    """The logarithm, cut at rounding; 0 for errors that are not finite, not a number for those not measured."""
    if error is None:
        return math.nan
    if not math.isfinite(error):
        return 0.0
    return max(float(_LOWEST), math.log10(error)) if error else float(_LOWEST)


def _number(error: float) -> str:
    if error == 0 or not math.isfinite(error):
        return "·" if error == 0 else "∞"
    return f"{error:.1g}".lstrip("0") if error >= 0.01 else f"{math.log10(error):.0f}".replace("-", "−")


def _row_label(row: Mapping[str, Any]) -> str:
    return row["name"] if row["name"] == "surrogate" else f"{row['name']}  ({row['kind']})"
