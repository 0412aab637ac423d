"""A contact sheet: a few frames of a trajectory as one small picture, drawn cell by cell, the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cliffsteer.datasets.layout import AXES
from cliffsteer.fields import Field, FieldSpec

_PANEL = 128  # pixels along the longer side of a panel, at least
_MOST = 256  # larger panels leave cells out
_GAP = 8
_TEXT = 14  # pixels of a line of text


def contact_sheet(spec: FieldSpec, frames: Tensor, times: Sequence[str]) -> Image.Image:
    """Frames side by side, a row for each dynamic field on one colour scale.

    A field of one component is an image of its value, any other of its magnitude √(Σ cᵢ²). Axis 0 runs to the right and
    axis 1 upwards; of grids with more axes the middle slice of the later ones is shown, and said above it. On a grid
    with one axis there is one image instead, time running upwards.

    Args:
        spec: the fields.
        frames: shape (time, blade, *grid).
        times: a label for each frame.

    Raises:
        ValueError: no frames, or not as many labels.
    """
    if not len(frames) or len(frames) != len(times):
        raise ValueError(
            f"`times` has {len(times)} label(s) for {len(frames)} frame(s): give one for each, and at least one."
        )
    rows = []
    for field in spec.dynamic:
        values = np.stack([_plane(spec, field, frame) for frame in frames])
        panels = [values.T] if values.ndim == 2 else list(values)
        labels = [f"{times[0]} to {times[-1]} upwards"] if values.ndim == 2 else times
        title = ", ".join(filter(None, (_title(spec, field, values), shown_slice(frames.shape[2:]))))
        rows.append((title, [_paint(panel, *_limits(values)) for panel in panels], labels))
    cell = [max(panel.size[i] for _, panels, _ in rows for panel in panels) for i in (0, 1)]
    height = cell[1] + 2 * _TEXT + 2 * _GAP
    sheet = Image.new("RGB", (max(len(panels) for _, panels, _ in rows) * (cell[0] + _GAP) + _GAP, len(rows) * height))
    sheet.paste("white", (0, 0, *sheet.size))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 2)
    for i, (title, panels, labels) in enumerate(rows):
        draw.text((_GAP, i * height + 2), title, "black", font)
        for j, (panel, label) in enumerate(zip(panels, labels, strict=True)):
            x, y = _GAP + j * (cell[0] + _GAP), i * height + _TEXT + _GAP
            sheet.paste(panel, (x, y))
            draw.text((x, y + cell[1] + 2), label, "black", font)
    return sheet


def shown_slice(shape: Sequence[int]) -> str:
    """Which slice of a grid a sheet shows, as "z[4] of 0..8"; empty with at most two axes."""
    later = zip(AXES[2:], shape[2:], strict=False)
    return ", ".join(f"{name}[{n // 2}] of 0..{n - 1}" for name, n in later)


def _plane(spec: FieldSpec, field: Field, frame: Tensor) -> np.ndarray:
    slot = spec.slots[field.name]
    values = frame[slot.start : slot.stop]
    while values.ndim > 3:
        values = values[..., values.shape[-1] // 2]
    array = values.double().numpy()
    return array[0] if len(array) == 1 else np.sqrt(np.square(array).sum(0))


def _limits(values: np.ndarray) -> tuple[str, float, float]:
    """Colour map and its ends: two-sided about zero when values of both signs matter."""
    low, high = float(values.min()), float(values.max())
    if low < -0.05 * high:
        limit = max(abs(low), abs(high))
        return "RdBu_r", -limit, limit
    return "viridis", min(low, 0.0) if low < 0.5 * high else low, high


def _paint(values: np.ndarray, name: str, low: float, high: float) -> Image.Image:
    from matplotlib import colormaps

    scaled = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    colours = np.round(255 * colormaps[name](scaled)[..., :3]).astype(np.uint8)
    skip = -(-max(values.shape) // _MOST)
    image = Image.fromarray(np.ascontiguousarray(colours[::skip, ::skip].swapaxes(0, 1)[::-1]))
    factor = max(1, -(-_PANEL // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _title(spec: FieldSpec, field: Field, values: np.ndarray) -> str:
    name = field.name if spec.slots[field.name].size == 1 else f"|{field.name}|"
    unit = "" if field.unit in ("", "1") else f" {field.unit}"
    _, low, high = _limits(values)
    return f"{name}: {low:.3g} to {high:.3g}{unit}"
