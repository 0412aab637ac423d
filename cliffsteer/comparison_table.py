"""The table of a comparison, as Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliffsteer import comparison
from cliffsteer.comparison import Group, Run, group_runs
from cliffsteer.comparison_plots import cost_figure, data_figure, rollout_figure
from cliffsteer.intervals import Estimate
from cliffsteer.report import png, render, versions
from cliffsteer.storage import replacing_file


@dataclass(frozen=True)
class Column:
    """A number of every run, at least 0.

    Args:
        key: its name in the CSV files.
        title: its heading.
        value: reads it from the metrics.
        written: writes a number for people.
        spread: whether the seed decides it; the speed of the machine does not follow the seeds, so it has a mean only.
    """

    key: str
    title: str
    value: Callable[[Mapping[str, Any]], float | None]
    written: Callable[[float], str]
    spread: bool = True


def columns(metrics: Mapping[str, Any], coarse: bool = False) -> list[Column]:
    """The columns for runs that were measured like this one.

    Args:
        metrics: of the run.
        coarse: whether there are coarse solvers, with which the time for a frame is to be compared.
    """
    fields = list(metrics["one_step"]["model"]["fields"])
    unit = metrics["dataset"].get("time_unit", "s")
    found = [
        Column("weights", "weights", comparison.weights, _whole, False),
        Column("flops", "FLOPs a sample", comparison.flops, _large, False),
        Column("training_trajectories", "training trajectories", comparison.training_trajectories, _whole, False),
        Column("training_seconds", "training, s", comparison.training_seconds, _short, False),
        Column("samples_per_second", "samples/s", comparison.throughput, _short, False),
    ]
    if coarse:
        found.append(Column("seconds_per_frame", "s a frame", comparison.frame_seconds, _tiny, False))
    parts = {"one_step": "one step"}
    if "rollout" in metrics:
        parts["rollout"] = f"{metrics['rollout']['steps']} steps"
    for part, words in parts.items():
        for metric in ("nrmse", "vrmse"):
            key, value = f"{part}_{metric}", comparison.error(part, metric=metric)
            found.append(Column(key, f"{metric.upper()}, {words}", value, _digits))
        if len(fields) > 1:
            for field in fields:
                value = comparison.error(part, field)
                found.append(Column(f"{part}_nrmse_{field}", f"NRMSE of {field}, {words}", value, _digits))
    if "rotated" in metrics:
        for part, words in parts.items():
            value = comparison.error(f"rotated.{part}")
            found.append(Column(f"rotated_{part}_nrmse", f"NRMSE rotated, {words}", value, _digits))
    if "rollout" in metrics:
        found.append(
            Column("correlation_time", f"correlation ≥ 0.8, {unit}", comparison.correlation_time, _short),
        )
        found.append(Column("stable_steps", "stable steps", comparison.stable_steps, _short))
    return [*found, Column("equivariance", "symmetry violation", comparison.violation, _tiny)]


def columns_of(runs: Sequence[Run]) -> list[Column]:
    """The columns for these runs, which were measured alike."""
    return columns(runs[0].metrics, bool(comparison.coarse_solvers([run.metrics for run in runs])))


def write_comparison(runs: Sequence[Run], out: str | Path, title: str = "cliffsteer comparison") -> Path:
    """Write table.md, table.csv (a row per group), runs.csv (a row per run), the plots as PNG, and compare.html.

    Args:
        runs: evaluated runs.
        out: folder.
        title: heading.

    Returns:
        The page.

    Raises:
        ValueError: no runs, or runs that were evaluated on different data or in different ways.
        OSError: a file cannot be written.
    """
    groups, out = group_runs(runs), Path(out)
    metrics = runs[0].metrics
    table, unit = columns_of(runs), metrics["dataset"].get("time_unit", "s")
    figures = {
        "rollouts": rollout_figure(groups, metrics["dataset"]["dt"], unit),
        "error_versus_cost": cost_figure(groups),
        "error_versus_data": data_figure(groups),
    }
    figures = {name: figure for name, figure in figures.items() if figure is not None}
    texts = {
        "table.md": f"# {title}\n\n{markdown(groups, table)}\n{describe(groups)}\n",
        "table.csv": group_csv(groups, table),
        "runs.csv": run_csv(runs, table),
        "compare.html": render(
            "compare.html",
            title=title,
            header=["Network", "seeds", *(column.title for column in table)],
            rows=[*_rows(groups, table), *_baselines(groups, table)],
            text=describe(groups),
            figures={CAPTIONS[name]: png(figure) for name, figure in figures.items()},
            groups={group.label: [_told(run) for run in group.runs] for group in groups},
            versions=versions(),
        ),
    }
    for name, figure in figures.items():
        with replacing_file(out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    for name, text in texts.items():
        with replacing_file(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return out / "compare.html"


CAPTIONS = {
    "rollouts": "Errors of rollouts over time: means over seeds, with 95 % confidence bands.",
    "error_versus_cost": "Error versus cost: means over seeds, with 95 % confidence intervals.",
    "error_versus_data": "Error versus number of training trajectories, with 95 % confidence intervals.",
}


def markdown(groups: Sequence[Group], table: Sequence[Column]) -> str:
    """The table in Markdown, a row per group and one for each baseline: persistence, coarse solvers."""
    rows = [*_rows(groups, table), *_baselines(groups, table)]
    lines = [["network", "seeds", *(column.title for column in table)], ["---"] * (2 + len(table)), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def group_csv(groups: Sequence[Group], table: Sequence[Column]) -> str:
    """The table as CSV: for each number the mean, its standard error, and the ends of the 95 % interval."""
    header = ["network", "seeds"]
    for column in table:
        header += [column.key, *(f"{column.key}_{word}" for word in ("error", "low", "high") if column.spread)]
    rows = []
    for group in groups:
        row: list[Any] = [group.label, len(group.runs)]
        for column in table:
            found = group.estimate(column.value)
            row.append(None if found is None else found.mean)
            if column.spread:
                one = found is None or found.half is None
                row += [None] * 3 if one else [found.error, *_interval(found)]
        rows.append(row)
    return _csv([header, *rows])


def run_csv(runs: Sequence[Run], table: Sequence[Column]) -> str:
    """A row per run."""
    header = ["run", "model", "seed", *(column.key for column in table)]
    rows = [[run.name, run.model.get("name"), _seed(run), *(c.value(run.metrics) for c in table)] for run in runs]
    return _csv([header, *rows])


def describe(groups: Sequence[Group]) -> str:
    """Sentences on what the table holds."""
    metrics = groups[0].runs[0].metrics
    data = metrics["dataset"]
    text = (
        f"Measured on {data['trajectories']} trajectories of the split {data['split']} of {data['recipe']['solver']}"
        f" ({data['windows']} windows). NRMSE √(E|û − u|² / E|u|²) and VRMSE are means over fields; persistence"
        " predicts no change."
    )
    if comparison.coarse_solvers([run.metrics for group in groups for run in group.runs]):
        text += " Solvers with fewer cells are that of the data, interpolated: what their time buys without a network."
    if any(len(group.runs) > 1 for group in groups):
        text += (
            " Over several seeds: mean ± standard error [95 % confidence interval by Student's t]; the seeds are those"
            " of initial weights and order of the data, the test set is one."
        )
    if any(len(group.runs) == 1 for group in groups):
        text += " A single seed has no interval: nothing is known of its spread."
    costs = [run.metrics.get("cost") for group in groups for run in group.runs]
    devices = {(c["device"], c["threads"], c["batch_size"]) for c in costs if c}
    told = ", ".join(f"{device} ({threads} threads), batches of {size}" for device, threads, size in sorted(devices))
    return text + (f" Throughput: {told}." if told else "")


# ----------------------------------------------------------------------------------------------------- private


def _rows(groups: Sequence[Group], table: Sequence[Column]) -> list[list[str]]:
    return [
        [group.label, str(len(group.runs)), *(_cell(group.estimate(column.value), column) for column in table)]
        for group in groups
    ]


def _cell(found: Estimate | None, column: Column) -> str:
    if found is None:
        return "–"
    if found.half is None or not column.spread:
        return column.written(found.mean)
    numbers = (found.mean, found.error, *_interval(found))
    mean, error, low, high = map(column.written, numbers)
    return f"{mean} ± {error} [{low}, {high}]"


def _interval(found: Estimate) -> tuple[float, float]:
    """Ends of the confidence interval; what is measured here is never below 0."""
    return max(0.0, found.mean - found.half), found.mean + found.half


def _baselines(groups: Sequence[Group], table: Sequence[Column]) -> list[list[str]]:
    """A row for persistence, which has errors and no costs, and one for each coarse solver."""
    metrics = [run.metrics for group in groups for run in group.runs]
    parts = [part for part in ("one_step", "rollout") if part in metrics[0]]
    found = {"persistence": {part: {"model": metrics[0][part]["persistence"]} for part in parts}}
    rows = []
    for name, baseline in (found | comparison.coarse_solvers(metrics)).items():
        values = [column.value(baseline) for column in table]
        cells = ["–" if value is None else column.written(value) for column, value in zip(table, values, strict=True)]
        rows.append([name, "–", *cells])
    return rows


def _told(run: Run) -> str:
    seed = _seed(run)
    return run.name if seed is None else f"{run.name} (seed {seed})"


def _seed(run: Run) -> int | None:
    return ((run.config or {}).get("trainer") or {}).get("seed")


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _digits(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 1e-3 or not value else f"{value:.1e}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _tiny(value: float) -> str:
    return f"{value:.1e}"


def _large(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.0f}"
