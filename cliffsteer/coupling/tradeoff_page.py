"""What `cliffsteer tradeoff` writes: JSON, CSV and one self-contained page."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliffsteer.coupling.tradeoff import Point
from cliffsteer.coupling.tradeoff_verdict import Gap, as_json, verdict
from cliffsteer.plotting import COLOURS
from cliffsteer.storage import replacing_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("label", "kind", "cells", "error", "seconds", "first quartile", "third quartile", "speedup")
_MARKS = {"solver": "o", "surrogate": "s", "coupling": "^", "peer": "D"}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ccc }}
td:first-child, th:first-child {{ text-align: left }} img {{ max-width: 100% }}</style></head><body>
<h1>{title}</h1>
<p>{verdict}</p>
<img src="data:image/png;base64,{figure}" alt="Error against seconds for one frame">
<table><tr>{head}</tr>{rows}</table>
<p>{facts}</p>
</body></html>
"""


def write_tradeoff(
    out: str | Path, points: Sequence[Point], facts: Mapping[str, Any], title: str, gaps: Sequence[Gap] = ()
) -> Path:
    """Write tradeoff.json, tradeoff.csv and tradeoff.html.

    Args:
        out: the folder.
        points: what was measured.
        facts: on what and where, label -> text or number.
        title: heading of the page.
        gaps: what a correction gains, for tradeoff.json.

    Returns:
        The page.

    Raises:
        OSError: a file cannot be written; an older one is still there.
    """
    out = Path(out)
    content = {"facts": dict(facts), "verdict": verdict(points), "points": as_json(points)}
    content |= {"gap_closed": as_json(gaps)} if gaps else {}
    _write(out / "tradeoff.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows(_cells(p) for p in points)
    _write(out / "tradeoff.csv", table.getvalue())
    image = io.BytesIO()
    tradeoff_figure(points).savefig(image, format="png")
    text = _PAGE.format(
        title=html.escape(title),
        verdict=html.escape(verdict(points)),
        figure=base64.b64encode(image.getvalue()).decode(),
        head="".join(f"<th>{name}</th>" for name in COLUMNS),
        rows="".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(p))}</tr>" for p in points),
        facts="<br>".join(f"{html.escape(str(key))}: {html.escape(str(value))}" for key, value in facts.items()),
    )
    _write(out / "tradeoff.html", text)
    return out / "tradeoff.html"


def tradeoff_figure(points: Sequence[Point]) -> Figure:
    """Error against seconds for one frame, both logarithmic; solvers are joined by a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axis = figure.subplots()
    solvers = sorted((p for p in points if p.kind == "solver"), key=lambda p: p.seconds)
    axis.plot([p.seconds for p in solvers], [p.error for p in solvers], "-", color=COLOURS[-1], linewidth=1)
    for number, p in enumerate(points):
        colour = COLOURS[-1] if p.kind == "solver" else COLOURS[number % (len(COLOURS) - 1)]
        axis.plot([p.seconds], [p.error], _MARKS[p.kind], color=colour)
        axis.annotate(p.label, (p.seconds, p.error), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("seconds for one frame")
    axis.set_ylabel("NRMSE after the last step")
    axis.grid(alpha=0.3, which="both")
    return figure


def _cells(p: Point) -> list[str]:
    speedup = "" if p.speedup is None else f"{p.speedup:.3g}"
    times = [f"{seconds:.4g}" for seconds in (p.seconds, *p.quartiles)]
    return [p.label, p.kind, " x ".join(map(str, p.shape)), f"{p.error:.4g}", *times, speedup]


def _write(path: Path, text: str) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
