"""What ``cliffsteer inspect equivariance`` shows: tables of layers, paddings and kernels, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_WORDS = {"exact": "exact", "part": "by a part of it", "numbers": "not finite", "untested": "–"}


def tables(result: Mapping[str, Any], heading: str) -> Iterator[Table | str]:
    """Tables and sentences about what `diagnose` returned; errors above rounding in float64 are red.

    Args:
        result: what it returned.
        heading: heading of the first table.
    """
    limit = result["tolerance"]
    yield _layers(result, heading, limit)
    if result["paddings"]:
        yield _paddings(result["paddings"], limit)
    if result["kernels"] and result["turns"]:
        yield _kernels(result, limit)
    for row in result["layers"]:
        if row["cause"] in ("padding", "lattice", "layer", "unclear", "numbers"):
            yield f"{row['name']}: {row['because']}."
    lacking = {}
    for element in result["elements"]:
        if element["missing"] is not None:
            lacking.setdefault(element["missing"], []).append(element["name"])
    for reason, names in lacking.items():
        yield f"The grid lacks {'; '.join(names)}: {reason}."
    outside = {name for row in result["layers"] for name in row["outside"]}
    if outside:
        yield f"Not in the group of a kernel, so left out of its layers' figures: {'; '.join(sorted(outside))}."
    yield from result["notes"]
    yield _verdict(result)


def _verdict(result: Mapping[str, Any]) -> str:
    whole = result["layers"][0]
    kept = [g for g in result["elements"] if g["missing"] is None and g["name"] not in whole["outside"]]
    if whole["cause"] == "untested":
        return "The grid has no symmetry that this network should keep."
    if whole["cause"] == "exact":
        single = _number(whole["worst"]["symmetries float32"])
        which = "of its grid and its kernels' group" if whole["outside"] else "of its grid"
        return f"The whole keeps every one of the {len(kept)} symmetries {which} to rounding; float32 adds {single}."
    return f"The whole breaks symmetries of its grid: {whole['because']}."


def _layers(result: Mapping[str, Any], heading: str, limit: float) -> Table:
    table = _table(
        heading + "\nlargest relative error, float64 if not said otherwise",
        *("layer", "kind", "symmetries", "away from\nwalls", "float32", "grid lacks", "shifts", "away from\nwalls"),
        *("rotations,\nboosts", "cause"),
    )
    kernels = {kernel["name"]: kernel for kernel in result["kernels"]}
    for row in result["layers"]:
        worst, broken = row["worst"], row["cause"] not in ("exact", "untested")
        turned = row["turns"] or kernels.get(row["name"], {}).get("function")
        table.add_row(
            f"[red]{row['name']}[/]" if broken else row["name"],
            row["kind"],
            _number(worst["symmetries"], limit),
            _number(worst["symmetries interior"], limit),
            _number(worst["symmetries float32"]),
            _number(worst["lacking"]),
            _number(worst["translations"]),
            _number(worst["translations interior"]),
            _number(_largest(turned), limit),
            _WORDS.get(row["cause"], row["cause"]),
        )
    return table


def _paddings(rows: Sequence[Mapping[str, Any]], limit: float) -> Table:
    table = _table(
        "The whole with other paddings, not trained anew",
        *("padding", "symmetries", "grid lacks", "shifts", "change of\nthe output", ""),
    )
    for row in rows:
        values = [row.get(key) for key in ("symmetries", "lacking", "translations", "change")]
        cells = [_number(value, limit if i == 0 else None) for i, value in enumerate(values)]
        table.add_row(row["padding"], *cells, row.get("note", ""))
    return table


def _kernels(result: Mapping[str, Any], limit: float) -> Table:
    kinds = list(dict.fromkeys(g["kind"] for g in result["turns"]))
    wave = f"waves of {result['wavelength']:g} cells"
    table = _table(
        "Kernels, turned by angles and rapidities that the lattice does not have: as functions, and as sampled",
        *("layer", "kernel", "group", *(f"{kind},\nfunction" for kind in kinds)),
        *(f"{kind},\n{wave}" for kind in kinds),
    )
    for kernel in result["kernels"]:
        cells = []
        for key in ("function", "sampled"):
            errors = kernel[key] or [None] * len(result["turns"])
            for kind in kinds:
                chosen = [e for g, e in zip(result["turns"], errors, strict=True) if g["kind"] == kind]
                cells.append(_number(_largest(chosen), limit if key == "function" else None))
        table.add_row(kernel["name"], kernel["kind"], kernel["group"] or "–", *cells)
    return table


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    words = ("layer", "kind", "kernel", "group", "padding", "cause", "")
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=column != "")
    return table


def _largest(errors: Iterable[float | None] | None) -> float | None:
    known = [e for e in errors or () if e is not None]
    return next((e for e in known if math.isnan(e)), max(known, default=None))


def _number(error: float | None, limit: float | None = None) -> str:
    """An error with two digits, red above the limit; a dash for what was not measured."""
    if error is None:
        return "–"
    text = "0" if error == 0 else f"{error:.1e}" if error < 0.01 else f"{error:.2g}"
    return text if limit is None or error <= limit else f"[red]{text}[/]"
