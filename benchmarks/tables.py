"""Tables as numbers in CSV files and as Markdown: what the tables of studies and of the published experiments share."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliffsteer.intervals import Estimate


@dataclass(frozen=True)
class Ratio:
    """A ratio, or what bounds it.

    Args:
        value: the ratio or its bound.
        bound: "" for a ratio, ">" and "<" for one that lies above and below ``value``.
    """

    value: float
    bound: str = ""

    def __str__(self) -> str:
        words = {"": "", ">": "more than ", "<": "less than "}
        return f"{words[self.bound]}{self.value:.3g}"


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of plain values: of an `Estimate` the mean and its standard error, of a `Ratio` the value and its bound."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        match value:
            case Estimate():
                found |= {name: value.mean, f"{name}_error": value.error}
            case Ratio():
                found |= {name: value.value, f"{name}_bound": value.bound}
            case _:
                found[name] = value
    return found


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of numbers, estimates and ratios, to six digits."""
    lines = [flat(row) for row in rows]
    names = sorted({name for line in lines for name in line}, key=lambda name: _place(name, rows))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in line.items()} for line in lines)


def read_csv(path: Path) -> list[dict[str, Any]]:
    """What `write_csv` wrote, as flat rows: numbers where they are some, None for what is empty."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: _read(text) for name, text in line.items()} for line in csv.DictReader(file)]


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, without the columns that are empty in every line."""
    filled = [i for i in range(len(head)) if not lines or any(line[i] for line in lines)]
    picked = [[line[i] for i in filled] for line in [head, ["---"] * len(head), *lines]]
    return "\n".join(f"| {' | '.join(line)} |" for line in picked)


def text(value: float | str | None, digits: str = ".3g") -> str:
    """A number, with so many digits if it has a fraction; nothing for None and what is no number."""
    return "" if value is None or value != value else format(value, digits) if isinstance(value, float) else str(value)


def interval(row: Mapping[str, Any], name: str, digits: str = ".3g", error: str = ".1g") -> str:
    """Mean ± standard error of a flat row's estimate; the mean alone of a single seed."""
    spread = row.get(f"{name}_error")
    shown = "" if spread is None else f"{spread:{error}}"
    return text(row.get(name), digits) + (f" ± {float(shown):g}" if "e+" in shown else f" ± {shown}" if shown else "")


def _place(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Where a column stands: in the order of the rows' names, errors and bounds after their values."""
    order = list(dict.fromkeys(key for row in rows for key in row))
    stem = name if name in order else name.rpartition("_")[0]
    return order.index(stem), stem != name


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _read(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word or None
