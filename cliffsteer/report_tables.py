"""Tables of the report beside that of errors: how long rollouts last, what they keep, scales, turned test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliffsteer.metrics.spectrum import BANDS


@dataclass(frozen=True)
class Table:
    """A table with a heading and a sentence on what it holds.

    Args:
        title: heading.
        text: what the numbers are.
        header: of the columns.
        rows: cells, as many as the header has.
    """

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def metric_tables(names: Sequence[str], metrics: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The tables of evaluated runs.

    Args:
        names: of the runs.
        metrics: what `cliffsteer.evaluation.evaluate` gave for each; what is not in all of them is left out.
    """
    runs = list(zip(names, metrics, strict=True))
    tables = [_moved(which, runs) for which in ("rotated", "boosted") if all(which in m for m in metrics)]
    if all("correlation" in m.get("rollout", {}) for m in metrics):
        tables += [_lasting(runs), _spectrum(runs), _kept(runs)]
    return tables


def number(value: float | None) -> str:
    """A number with four digits; "diverged" for what is none."""
    if value is None or value != value:
        return "diverged"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.1e}" if value else "0"


def errors(values: Mapping[str, Any], field: str) -> float | None:
    """NRMSE at the last lead time of a field, or "overall"."""
    return (values["overall"] if field == "overall" else values["fields"][field])["nrmse"][-1]


# ----------------------------------------------------------------------------------------------------- private

_Runs = Sequence[tuple[str, Mapping[str, Any]]]


def _moved(which: str, runs: _Runs) -> Table:
    first, rows = runs[0][1], []
    parts = {name: title for name, title in _parts(first).items() if name in first[which]}
    header = ["Network"] + [f"{word}, {title}" for title in parts.values() for word in ("as stored", which, "ratio")]
    for name, metrics in runs:
        row = [name]
        for part in parts:
            before, after = (errors(m[part]["model"], "overall") for m in (metrics, metrics[which]))
            row += [number(before), number(after), _ratio(after, before)]
        rows.append(row)
    if which == "boosted":
        text = "NRMSE, the mean over fields, on trajectories of the same system seen from frames that move."
        return Table("Boosted test set", text, header, rows)
    each = "each by one of" if first[which]["which"] == "one" else "each by all"
    text = (
        f"NRMSE, the mean over fields, on the same windows turned, {each} {first[which]['symmetries']} symmetries of"
        " the grid: history, parameters and future alike. An equivariant network loses nothing."
    )
    return Table("Rotated test set", text, header, rows)


def _lasting(runs: _Runs) -> Table:
    first = runs[0][1]["rollout"]
    fields, times = first["correlation"]["fields"], _thresholds(first)
    unit = runs[0][1]["dataset"].get("time_unit", "s")
    header = ["Network", "stable steps", "shortest"]
    header += [f"{field}: correlation ≥ {t}, {unit}" for field in fields for t in times]
    rows = []
    for name, metrics in runs:
        stable, correlation = metrics["rollout"]["stable"], metrics["rollout"]["correlation"]["fields"]
        row = [name, f"{_at_least(stable['lasting'])}{stable['steps']:.4g}", str(stable["shortest"])]
        row += [
            f"{_at_least(correlation[field][f'lasting_{t}'])}{correlation[field][f'time_{t}']:.4g}"
            for field in fields
            for t in times
        ]
        rows.append(row)
    text = (
        f"Means over {first['windows']} rollouts of {first['steps']} steps. A step is stable while the error is below"
        f" {first['stable']['limit']:g}, as bad as predicting zero; the other columns are the time until the"
        " correlation with the truth falls below a threshold. ≥: some rollouts lasted to their end, so the mean"
        " is a lower bound."
    )
    return Table("How long rollouts last", text, header, rows)


def _spectrum(runs: _Runs) -> Table:
    first = runs[0][1]["rollout"]
    fields = first["spectrum"]["fields"]
    header = ["Network", *(f"{field}, {band}" for field in fields for band in BANDS)]
    rows = []
    for name, metrics in runs:
        values = metrics["rollout"]["spectrum"]["fields"]
        row = [name]
        for field in fields:
            for band in BANDS:
                error, energy = (values[field][kind][band][-1] for kind in ("error", "energy"))
                row.append(f"{number(error)} ({number(energy)})")
        rows.append(row)
    text = (
        f"After {first['steps']} steps: NRMSE of the waves in the lowest, middle and highest third of wave numbers, and"
        " in brackets their predicted power over the true one."
    )
    return Table("Errors by scale", text, header, rows)


def _kept(runs: _Runs) -> Table:
    first = runs[0][1]["rollout"]
    fields = first["drift"]["model"]["fields"]
    divergences = first.get("divergence", {}).get("model", {}).get("fields", {})
    header = ["Network", *(f"{field}, {what}" for field in fields for what in ("mean", "energy"))]
    header += [f"{field}, divergence" for field in divergences]
    rows = []
    for name, rollout, who in [*((n, m["rollout"], "model") for n, m in runs), ("truth", first, "truth")]:
        drift = rollout["drift"][who]["fields"]
        row = [name, *(number(drift[field][what][-1]) for field in fields for what in ("mean", "energy"))]
        rows.append([*row, *(number(rollout["divergence"][who]["fields"][field][-1]) for field in divergences)])
    text = (
        f"Drift over {first['steps']} steps of the mean of each field and of its square, relative to the size of the"
        " field at the start"
        + (", and divergence of vector fields relative to their gradient." if divergences else ".")
        + " What the truth does is no fault."
    )
    return Table("What rollouts keep", text, header, rows)


def _parts(metrics: Mapping[str, Any]) -> dict[str, str]:
    parts = {"one_step": "1 step"}
    return parts | ({"rollout": f"{metrics['rollout']['steps']} steps"} if "rollout" in metrics else {})


def _thresholds(rollout: Mapping[str, Any]) -> list[str]:
    values = next(iter(rollout["correlation"]["fields"].values()))
    return [key.removeprefix("time_") for key in values if key.startswith("time_")]


def _at_least(lasting: float) -> str:
    return "≥ " if lasting > 0 else ""


def _ratio(value: float | None, reference: float | None) -> str:
    return "–" if value is None or not reference else f"{value / reference:.3f}"
