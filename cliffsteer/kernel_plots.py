"""Figures of steerable kernels: one kernel blade by blade, and the basis of all equivariant maps as a poster.

Each blade of the output is a row of images, each blade of the input a column, and every image is one matrix entry as a
function of position, in the plane of two grid axes through the kernel. Dashed lines are the points with q(x) = 0: the
light cone where the metric is indefinite. Grey squares are entries that vanish in the whole plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.kernel_symmetry import kernel_values
from cliffsteer.nn.kernels.basis import kernel_basis, time_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _GRADE_GAP = 0.07, 0.3  # between images, in widths of an image
_SIGNED, _ZERO, _FRAME = "RdBu_r", "#e9e9e9", "#9a9a9a"
_KINDS = ("⟨f⟩$_{k}$", "x ∧ ⟨f⟩$_{k}$", "x ⌋ ⟨f⟩$_{k}$", "x ∧ (x ⌋ ⟨f⟩$_{k}$) − {share}q(x)⟨f⟩$_{k}$")
"""The equivariant maps f ↦ M(x) f, in the order of `equivariant_maps`."""


def kernel_figure(
    kernel: nn.Module,
    out_channel: int = 0,
    in_channel: int = 0,
    plane: Sequence[int] | None = None,
    at: int = 0,
    title: str | None = None,
) -> Figure:
    """A kernel K(x) between one pair of channels: an image for each pair of blades, on one colour scale.

    The scale ends at the 99th percentile of the magnitudes, so that a large value at one point leaves the rest visible.

    Args:
        kernel: a kernel module, as in `cliffsteer.nn.kernels`; its kernel must not depend on an input.
        out_channel: channel of the output.
        in_channel: channel of the input.
        plane: the grid axes drawn to the right and upwards; by default the first two, in spacetime the first space axis
            and time.
        at: position of the plane on every other axis, in cells from the centre.
        title: heading; by default what the kernel is.

    Raises:
        ValueError: a kernel without a fixed value or with one that is not finite, one axis only, or a channel, axis or
            position that it has not.

    Example:
        >>> from cliffsteer.nn import CompleteKernel
        >>> figure = kernel_figure(CompleteKernel(CliffordAlgebra((1, -1)), 1, 1, 15))
    """
    values = kernel_values(kernel)
    wrong = int(values.numel() - values.isfinite().sum())
    if wrong:
        raise ValueError(
            f"`kernel` has {wrong} of {values.numel()} values that are not finite: there is no image of them."
        )
    algebra: CliffordAlgebra = kernel.algebra
    for name, channel, count in (
        ("out_channel", out_channel, values.shape[0]),
        ("in_channel", in_channel, values.shape[2]),
    ):
        if not 0 <= channel < count:
            raise ValueError(f"`{name}` (={channel}) must be in 0..{count - 1}: the kernel has {count} of them.")
    size = values.shape[-1]
    axes_drawn = _checked_plane(algebra, plane, at, size)
    tiles = _cut(values[out_channel, :, in_channel], axes_drawn, at)
    figure = _figure(*_size(algebra, {2: 1.05, 3: 0.9}.get(algebra.dim, 0.6), (0.85, 0.4)))
    axes = figure.subplots()
    limit = _robust_limit(tiles)
    image = _mosaic(axes, algebra, tiles, axes_drawn, at, limit)
    cut = {True: "both", False: "neither"}[bool(np.abs(tiles).max() > limit)]
    bar = figure.colorbar(image, ax=axes, fraction=0.05, shrink=0.6, pad=0.0, extend=cut, label="K(x)")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)
    group = getattr(kernel, "group", None)
    of_group = f", {group_name(algebra, group)}-steerable" if group else ""
    heading = title or f"{type(kernel).__name__} on {space_name(algebra)}, {size} points{of_group}"
    figure.suptitle(f"{heading}\nchannel {in_channel} → channel {out_channel}", fontsize=10 if algebra.dim < 3 else 13)
    figure.supxlabel(_caption(algebra, axes_drawn, at, size), fontsize=8)
    return figure


def basis_figure(
    algebra: CliffordAlgebra, kernel_size: int = 15, group: str = "O", plane: Sequence[int] | None = None, at: int = 0
) -> Figure:
    """A poster of the basis: each equivariant map M_b(x) as the images of its matrix entries.

    There are 4n maps, n rows of four, and for "SO" each again followed by the Hodge dual, 8n. Every map has its own
    colour scale. Any steerable kernel is K(x) = Σ_b r_b(q(x)) M_b(x).

    Args:
        algebra: the algebra.
        kernel_size: points along each axis.
        group: "O", "SO" or "orthochronous", which has the maps of "O" (its radial functions tell past from future).
        plane: as for `kernel_figure`.
        at: as for `kernel_figure`.

    Raises:
        ValueError: one axis only, an unknown group, or an axis or position that the lattice has not.
    """
    axes_drawn = _checked_plane(algebra, plane, at, kernel_size)
    basis = kernel_basis(algebra, kernel_size, group)
    n = algebra.dim
    kinds = [(kind, k) for kind, grades in enumerate(_grades(n)) for k in grades]
    width, height = _size(algebra, {2: 0.46, 3: 0.36}.get(n, 0.22), (0.1, 0.3))
    rows = basis.n_maps // 4
    figure = _figure(4 * width, rows * height + 1.0)
    cells = figure.subplots(rows, 4, squeeze=False)
    for number, values in enumerate(basis.maps):
        dual, position = divmod(number, 4 * n)
        kind, k = kinds[position]
        row, column = (0, 3) if (kind, k) == (0, n) else (k - (kind == 2), kind)  # the n-th identity fills a gap
        axes = cells[row + dual * n, column]
        tiles = _cut(values.unflatten(-1, (kernel_size,) * n), axes_drawn, at)
        _mosaic(axes, algebra, tiles, axes_drawn, at, 1.2 * float(np.abs(tiles).max()) or 1.0)
        formula = _KINDS[kind].format(k=k, share=_fraction(k, n))
        axes.set_title(f"⋆[ {formula} ]" if dual else formula, fontsize=10)
    name = group_name(algebra, group)
    figure.suptitle(
        f"The {basis.n_maps} {name}-equivariant maps f ↦ M(x) f on {space_name(algebra)}", fontsize=13, weight="bold"
    )
    figure.supxlabel(
        "Every steerable kernel is K(x) = Σ r(q(x)) M(x), with one radial function r for each map. Red is positive,"
        f" blue negative, white 0. {_caption(algebra, axes_drawn, at, kernel_size)}",
        fontsize=8,
    )
    return figure


def space_name(algebra: CliffordAlgebra) -> str:
    """The space in mathematical notation, R^n or R^{p,q}."""
    p, q = algebra.signature.count(1), algebra.signature.count(-1)
    return f"$\\mathbb{{R}}^{{{p}}}$" if not q else f"$\\mathbb{{R}}^{{{p},{q}}}$"


def group_name(algebra: CliffordAlgebra, group: str) -> str:
    """A kernel's group in mathematical notation, e.g. O(1,2)."""
    p, q = algebra.signature.count(1), algebra.signature.count(-1)
    sizes = f"({p},{q})" if q else f"({p})"
    return {"orthochronous": "O$^↑$", "SO": "SO"}.get(group, "O") + sizes


# ---------------------------------------------------------------------------------------------------- private


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _size(algebra: CliffordAlgebra, image: float, rest: tuple[float, float]) -> tuple[float, float]:
    """Width and height in inches of a square of images, with room for what stands around it."""
    side = image * (_starts(algebra)[-1] + 1.8)
    return side + rest[0], side + rest[1]


def _checked_plane(algebra: CliffordAlgebra, plane: Sequence[int] | None, at: int, size: int) -> tuple[int, int]:
    if algebra.dim < 2:
        raise ValueError(f"{algebra} has one axis: images need two.")
    half = (size - 1) // 2
    if not -half <= at <= half:
        raise ValueError(f"`at` (={at}) must be in {-half}..{half}: the kernel has {size} points along each axis.")
    if at and algebra.dim == 2:
        raise ValueError(f"`at` (={at}) has no meaning: {algebra} has no axis besides the two that are drawn.")
    if plane is None:
        return _default_plane(algebra)
    axes = tuple(plane)
    if len(axes) != 2 or len(set(axes)) != 2 or any(axis not in range(algebra.dim) for axis in axes):
        raise ValueError(f"`plane` (={list(axes)}) must hold two different axes out of 0..{algebra.dim - 1}.")
    return axes[0], axes[1]


def _default_plane(algebra: CliffordAlgebra) -> tuple[int, int]:
    if algebra.is_definite:
        return 0, 1
    try:
        time = time_axis(algebra)
    except ValueError:  # as many axes of either sign, or two and more of both
        time = 0
    return next(i for i, sign in enumerate(algebra.signature) if sign != algebra.signature[time]), time


def _cut(values: Tensor, plane: tuple[int, int], at: int) -> np.ndarray:
    """Values (out, in, *k) in a plane: (out, in, right, up)."""
    size = values.shape[-1]
    index = [slice(None) if axis in plane else size // 2 + at for axis in range(values.ndim - 2)]
    tiles = values[(slice(None), slice(None), *index)].numpy()
    return tiles if plane[0] < plane[1] else tiles.swapaxes(2, 3)


def _starts(algebra: CliffordAlgebra) -> list[float]:
    """Where the image of each blade begins, in widths of an image: grades stand apart."""
    starts, grades = [0.0], algebra.grades
    for i in range(1, algebra.n_blades):
        starts.append(starts[-1] + 1 + (_GAP if grades[i] == grades[i - 1] else _GRADE_GAP))
    return starts


def _mosaic(
    axes: Axes, algebra: CliffordAlgebra, tiles: np.ndarray, plane: tuple[int, int], at: int, limit: float
) -> Any:
    """Draw images (out, in, right, up) as a square with labels; the axes' unit is the width of an image."""
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.patches import Rectangle

    starts, (blades, _, size, _) = _starts(algebra), tiles.shape
    alive = ~(tiles == 0).all((2, 3))
    edges = np.concatenate([start + np.linspace(0, 1, size + 1) for start in starts])
    canvas = np.full((len(edges) - 1, len(edges) - 1), np.nan)  # one masked cell between two images
    for i, j in np.argwhere(alive):
        rows, columns = i * (size + 1), j * (size + 1)
        canvas[rows : rows + size, columns : columns + size] = tiles[i, j, :, ::-1].T
    image = axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(canvas), cmap=_SIGNED, vmin=-limit, vmax=limit, rasterized=True
    )
    lines = _null_lines(algebra, plane, at, size)
    cones = [
        np.stack([starts[j] + u, starts[i] + 1 - v], 1) for i, j in np.argwhere(alive) for u, v in lines
    ]  # rows run downwards
    axes.add_collection(LineCollection(cones, colors="black", linewidths=0.6, linestyles=(0, (3, 2)), alpha=0.75))
    frames = [[Rectangle((starts[j], starts[i]), 1, 1) for i, j in np.argwhere(kind)] for kind in (alive, ~alive)]
    axes.add_collection(PatchCollection(frames[0], facecolor="none", edgecolor=_FRAME, linewidth=0.5))
    axes.add_collection(PatchCollection(frames[1], facecolor=_ZERO, edgecolor="none", zorder=0))
    font = {"fontsize": 9 if blades <= 8 else 6, "color": "#333333"}
    for start, name in zip(starts, algebra.blade_names, strict=True):
        label = f"$e_{{{name[1:]}}}$" if name != "1" else "1"
        axes.text(-0.12, start + 0.5, label, ha="right", va="center", **font)
        axes.text(start + 0.5, -0.12, label, ha="center", va="bottom", **font)
    axes.set(xlim=(-0.75, starts[-1] + 1.05), ylim=(starts[-1] + 1.05, -0.5), aspect="equal")
    axes.axis("off")
    return image


def _null_lines(
    algebra: CliffordAlgebra, plane: tuple[int, int], at: int, size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The curves s_u u² + s_v v² + c = 0 in an image from 0 to 1; NaN where they leave it."""
    signs = [algebra.signature[axis] for axis in plane]
    c = at**2 * sum(sign for axis, sign in enumerate(algebra.signature) if axis not in plane)
    reach, t = size / 2, np.linspace(-1, 1, 201)
    free, other = reach * t, np.sqrt((reach * t) ** 2 + abs(c))
    if signs[0] == signs[1]:
        radius = math.sqrt(max(-c * signs[0], 0))
        curves = [(radius * np.cos(np.pi * t), radius * np.sin(np.pi * t))] if radius else []
    elif c == 0:
        curves = [(free, free), (free, -free)]
    elif -c * signs[0] > 0:
        curves = [(other, free), (-other, free)]
    else:
        curves = [(free, other), (free, -other)]
    inside = [np.where(np.maximum(np.abs(u), np.abs(v)) <= reach, (u, v), np.nan) for u, v in curves]
    return [(u / size + 0.5, v / size + 0.5) for u, v in inside]


def _caption(algebra: CliffordAlgebra, plane: tuple[int, int], at: int, size: int) -> str:
    right, up = (f"$x_{axis + 1}$ ($e_{axis + 1}^2 = {algebra.signature[axis]:+d}$)" for axis in plane)
    others = [f"$x_{axis + 1}$" for axis in range(algebra.dim) if axis not in plane]
    cut = f", cut at {' = '.join(others)} = {at}" if others else ""
    drawn = bool(_null_lines(algebra, plane, at, size))
    cone = "dashed: q(x) = 0" if drawn else "q(x) = 0 at the centre only" if at == 0 else "q(x) ≠ 0"
    return f"Rows: blade out, columns: blade in.\nIn each image {right} to the right, {up} upwards{cut}; {cone}"


def _grades(n: int) -> tuple[range, ...]:
    """Grades that each kind of map reads."""
    return range(n + 1), range(n), range(1, n + 1), range(1, n)


def _robust_limit(tiles: np.ndarray) -> float:
    """The 99th percentile of the magnitudes that are not zero."""
    size = np.abs(tiles[np.isfinite(tiles) & (tiles != 0)])
    return float(np.percentile(size, 99)) if len(size) else 1.0


def _fraction(k: int, n: int) -> str:
    divisor = math.gcd(k, n)
    return f"$\\frac{{{k // divisor}}}{{{n // divisor}}}$"
