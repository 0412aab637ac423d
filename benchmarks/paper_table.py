"""Tables of the published experiments: what runs measured, over seeds, beside what papers print."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tables import Ratio, flat, grid, interval, text

from cliffsteer.intervals import estimate

PUBLISHED = Path(__file__).with_name("published.yaml")
BASELINE = "ResNet"
"""The network that errors and amounts of data are compared with."""
SAME_TASK = "full"
"""The tier whose task is that of the papers."""
PAPERS = {
    "zhdanov2024": "[Zhdanov et al. (2024)](https://arxiv.org/abs/2402.14730)",
    "szarvas2025": "[Szarvas and Zhdanov (2025)](https://arxiv.org/abs/2510.14007)",
}


@dataclass(frozen=True)
class Result:
    """A run that was evaluated.

    Args:
        network: its name in the study.
        trajectories: number that it was trained on; None for all there are.
        metrics: what ``cliffsteer evaluate`` wrote.
        components: number of components of each field.
    """

    network: str
    trajectories: int | None
    metrics: Mapping[str, Any]
    components: Mapping[str, int]


def read_result(folder: Path, network: str, trajectories: int | None) -> Result:
    """The result of a run's folder."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    spec = json.loads((folder / "surrogate" / "config.json").read_text(encoding="utf-8"))["spec"]
    axes = len(spec["signature"])
    components = {
        field["name"]: math.comb(axes, field["grade"]) for field in spec["fields"] if field["role"] == "dynamic"
    }
    return Result(network, trajectories, metrics, components)


def mean_square(result: Result, *part: str) -> float | None:
    """Mean squared error over all components alike, Σ_f C_f mse_f / Σ_f C_f, in the fields' units: that of the papers.

    Args:
        result: a run.
        part: where in the metrics, as "rotated", "one_step".

    Returns:
        The error one step ahead; None where it diverged or was not measured.
    """
    metrics: Any = result.metrics
    for key in part:
        metrics = metrics.get(key, {})
    if not metrics:
        return None
    fields = metrics["model"]["fields"]
    errors = {name: fields[name]["mse"][0] for name in result.components}
    if any(error is None for error in errors.values()):
        return None
    total = sum(count * errors[name] for name, count in result.components.items())
    return total / sum(result.components.values())


def rollout_error(result: Result) -> float | None:
    """NRMSE of the last frame of a rollout, mean over fields; None where it diverged or was not measured."""
    overall = result.metrics.get("rollout", {}).get("model", {}).get("overall")
    return overall["nrmse"][-1] if overall else None


def milliseconds(result: Result) -> float | None:
    """Time of a step of one sample, in a batch, in ms."""
    rate = result.metrics.get("cost", {}).get("samples_per_second")
    return 1000 / rate if rate else None


def data_efficiency(error: float, trajectories: int, curve: Mapping[int, float]) -> Ratio:
    """How many times more trajectories the baseline needs for the same error.

        n* / n  with  baseline(n*) = error

    The baseline's error is a straight line between two sizes on doubly logarithmic axes; n* is the first place where it
    comes down to the error. It is not extrapolated: beyond its sizes there is a bound only.

    Args:
        error: of the network.
        trajectories: n that the network was trained on.
        curve: error of the baseline by number of trajectories.

    Raises:
        ValueError: no curve.

    Example:
        >>> str(data_efficiency(0.1, 8, {8: 0.4, 32: 0.1})), str(data_efficiency(0.05, 8, {8: 0.4, 32: 0.1}))
        ('4', 'more than 4')
    """
    if not curve:
        raise ValueError("`curve` is empty: the baseline has no errors to compare with.")
    points = sorted(curve.items())
    if error > points[0][1]:
        return Ratio(points[0][0] / trajectories, "<")
    if error == points[0][1]:
        return Ratio(points[0][0] / trajectories)
    for (n0, e0), (n1, e1) in itertools.pairwise(points):
        if e1 <= error < e0:
            share = math.log(e0 / error) / math.log(e0 / e1)
            return Ratio(n0 * (n1 / n0) ** share / trajectories)
    return Ratio(points[-1][0] / trajectories, ">")


def read_published(task: str) -> dict[str, Any]:
    """What papers print about a task: "task", and by paper "sizes" and, by network, an error for each; {} for none."""
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).get(task, {})


def published_errors(task: str) -> Iterator[tuple[str, str, int, float]]:
    """Every printed error of a task: (paper, network, trajectories, error)."""
    for paper in PAPERS:
        data = read_published(task).get(paper, {"sizes": (), "networks": {}})
        for network, errors in data["networks"].items():
            for size, error in zip(data["sizes"], errors, strict=True):
                if error is not None:
                    yield paper, network, size, error


def rows(results: Sequence[Result], task: str = "", tier: str = "") -> list[dict[str, Any]]:
    """A row for each network and number of trajectories, by that number, the best network first.

    Args:
        results: runs of one study.
        task: whose published errors stand beside, where ``tier`` is the papers' own.
        tier: of the study.

    Returns:
        "network", "trajectories", "seeds"; an `Estimate` or None of "mse", "rollout", "rotated", "boosted", "seconds"
        and "milliseconds"; "weights"; "over_baseline", the ratio of the errors; "data", a `Ratio`; and "published".
    """
    groups: dict[tuple[str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.network, result.trajectories), []).append(result)
    table = [_row(network, size, members) for (network, size), members in groups.items()]
    curve = {row["trajectories"]: row["mse"].mean for row in table if row["network"] == BASELINE and row["mse"]}
    printed = {(n, size): error for _, n, size, error in reversed(list(published_errors(task)))}
    for row in table:
        error, size = row["mse"], row["trajectories"]
        row["over_baseline"] = error.mean / curve[size] if error and size in curve else None
        known = error and size and curve and None not in curve
        row["data"] = data_efficiency(error.mean, size, curve) if known else None
        row["published"] = printed.get((row["network"], size)) if tier == SAME_TASK else None
    return sorted(table, key=lambda row: (row["trajectories"] or 0, row["mse"].mean if row["mse"] else math.inf))


def markdown(table: Sequence[Mapping[str, Any]], task: str, about: str) -> str:
    """The tables as a page: ours, then what papers print.

    Args:
        table: what `rows` gives.
        task: whose published errors follow.
        about: sentences above the table.
    """
    parts = [about, our_table(table)]
    printed = list(published_errors(task))
    if printed:
        base = {(paper, size): error for paper, network, size, error in printed if network == BASELINE}
        parts.append(f"Published ({read_published(task)['task']}; MSE, unit: {read_published(task)['unit']}):")
        lines = [
            [PAPERS[paper], network, str(size), f"{error:.3g}", text(error / base[paper, size])]
            if (paper, size) in base
            else [PAPERS[paper], network, str(size), f"{error:.3g}", ""]
            for paper, network, size, error in printed
        ]
        parts.append(grid(["paper", "network", "trajectories", "one-step MSE", f"over {BASELINE}"], lines))
    return "\n\n".join(parts) + "\n"


def our_table(table: Sequence[Mapping[str, Any]]) -> str:
    """The table of `rows`, or of its file, in Markdown."""
    columns = {
        "network": lambda row: row["network"],
        "trajectories": lambda row: text(row["trajectories"]),
        "seeds": lambda row: text(row["seeds"]),
        "one-step MSE": lambda row: interval(row, "mse"),
        f"over {BASELINE}": lambda row: text(row["over_baseline"]),
        "published MSE": lambda row: text(row["published"]),
        f"data {BASELINE} needs": lambda row: str(Ratio(row["data"], row["data_bound"] or "")) if row["data"] else "",
        "rollout NRMSE": lambda row: interval(row, "rollout"),
        "MSE, rotated": lambda row: interval(row, "rotated"),
        "MSE, boosted": lambda row: interval(row, "boosted"),
        "weights": lambda row: f"{row['weights']:,}",
        "training, s": lambda row: interval(row, "seconds"),
        "step of a sample, ms": lambda row: interval(row, "milliseconds"),
    }
    lines = [[cell(row) for cell in columns.values()] for row in map(flat, table)]
    return grid(list(columns), lines)


def _row(network: str, trajectories: int | None, members: Sequence[Result]) -> dict[str, Any]:
    return {
        "network": network,
        "trajectories": trajectories,
        "seeds": len(members),
        "mse": estimate([mean_square(result, "one_step") for result in members]),
        "rollout": estimate([rollout_error(result) for result in members]),
        "rotated": estimate([mean_square(result, "rotated", "one_step") for result in members]),
        "boosted": estimate([mean_square(result, "boosted", "one_step") for result in members]),
        "weights": members[0].metrics["weights"],
        "seconds": estimate([result.metrics.get("training", {}).get("seconds") for result in members]),
        "milliseconds": estimate([milliseconds(result) for result in members]),
    }
