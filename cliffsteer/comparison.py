"""Comparison of evaluated runs: what they cost and how wrong they are, with the spread over seeds."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliffsteer.intervals import Estimate, estimate
from cliffsteer.training.config import MANNER

HOW = MANNER | {"trainer": ("seed", *MANNER["trainer"])}
"""Keys of a training's config that runs of one group may differ in: the seed, and how the training is done."""


@dataclass(frozen=True)
class Run:
    """An evaluated run.

    Args:
        name: how it is called.
        metrics: what ``cliffsteer evaluate`` wrote.
        model: name and options of the network.
        config: of its training; None when that is not known.
    """

    name: str
    metrics: Mapping[str, Any]
    model: Mapping[str, Any]
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only.

    Args:
        label: how they are called.
        runs: the runs.
        series: the same for groups that differ in the data they were trained on only, named after the first of them.
    """

    label: str
    runs: tuple[Run, ...]
    series: str

    def estimate(self, value: Callable[[Mapping[str, Any]], float | None]) -> Estimate | None:
        """Mean and interval of a number of the metrics; None where it diverged or was not measured."""
        return estimate([value(run.metrics) for run in self.runs])


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs that differ in their seed only into one group, in the order of the first of each.

    Raises:
        ValueError: no runs, runs that were evaluated on different data or in different ways, or a seed twice.
    """
    if not runs:
        raise ValueError("`runs` is empty: a comparison needs at least one evaluated run.")
    require_alike([(run.name, run.metrics) for run in runs])
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_key(run), []).append(run)
    for members in found.values():
        _require_different_seeds(members)
    labels = _unique([_label(members) for members in found.values()])
    series: dict[str, str] = {}
    for label, members in zip(labels, found.values(), strict=True):
        stem = re.sub(r"[-_., =]*n?\d+$", "", label)  # of names that end in the number of trajectories
        series.setdefault(_key(members[0], *_DATA), stem or members[0].model.get("name", label))
    names = dict(zip(series, _unique(list(series.values())), strict=True))
    return [
        Group(label, tuple(members), names[_key(members[0], *_DATA)])
        for label, members in zip(labels, found.values(), strict=True)
    ]


def require_alike(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raise a ValueError when runs, names and metrics, were evaluated on different data or in different ways."""
    first, reference = runs[0]
    for name, one in runs:
        if "settings" not in one:
            raise ValueError(f"{name} was evaluated by an older cliffsteer: `cliffsteer evaluate` it again.")
        for what, mine, theirs in zip(_TOLD, _told(one), _told(reference), strict=True):
            if mine != theirs:
                raise ValueError(
                    f"{name} was evaluated with {what} {mine}, {first} with {theirs}: evaluate all runs alike."
                )
    turned: dict[str, str] = {}  # may be left out
    for name, one in runs:
        turned.setdefault(one["settings"].get("rotated", "none"), name)
    turned.pop("none", None)
    if len(turned) > 1:
        told = ", ".join(f"{name} with rotated {which}" for which, name in turned.items())
        raise ValueError(f"Runs were turned in different ways ({told}): evaluate all runs alike.")


def weights(metrics: Mapping[str, Any]) -> float | None:
    """Number of weights."""
    return metrics.get("weights")


def flops(metrics: Mapping[str, Any]) -> float | None:
    """Floating-point operations of a step of one sample."""
    return metrics.get("cost", {}).get("flops")


def throughput(metrics: Mapping[str, Any]) -> float | None:
    """Samples a second, of the batch and on the device that it was evaluated with."""
    return metrics.get("cost", {}).get("samples_per_second")


def frame_seconds(metrics: Mapping[str, Any]) -> float | None:
    """Time for a frame of one trajectory, s, of the batch and on the device that it was evaluated with."""
    return metrics.get("cost", {}).get("seconds_per_frame")


def training_seconds(metrics: Mapping[str, Any]) -> float | None:
    """Time that the training took, s."""
    return metrics.get("training", {}).get("seconds")


def training_trajectories(metrics: Mapping[str, Any]) -> float | None:
    """Number of trajectories that it was trained on."""
    return metrics.get("training", {}).get("trajectories")


def error(part: str, field: str = "overall", metric: str = "nrmse") -> Callable[[Mapping[str, Any]], float | None]:
    """The error at the last lead time of a part, "one_step", "rollout", or of the turned test set, "rotated.one_step".

    Args:
        part: where in the metrics.
        field: of which field, or "overall".
        metric: which error.
    """

    def value(metrics: Mapping[str, Any]) -> float | None:
        for key in part.split("."):
            metrics = metrics.get(key, {})
        model = metrics.get("model", {})
        values = model.get("overall") if field == "overall" else model.get("fields", {}).get(field)
        return None if values is None else values[metric][-1]

    return value


def stable_steps(metrics: Mapping[str, Any]) -> float | None:
    """Mean number of stable steps of a rollout."""
    return metrics.get("rollout", {}).get("stable", {}).get("steps")


def correlation_time(metrics: Mapping[str, Any]) -> float | None:
    """Time until the correlation falls below 0.8, the mean over fields."""
    fields = metrics.get("rollout", {}).get("correlation", {}).get("fields", {}).values()
    times = [values["time_0.8"] for values in fields]
    return sum(times) / len(times) if times else None


def violation(metrics: Mapping[str, Any]) -> float | None:
    """Equivariance error."""
    return metrics.get("equivariance", {}).get("relative_error")


def coarse_solvers(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Coarse solvers that any of some runs was evaluated beside, each like a run of its own.

    Args:
        metrics: what ``cliffsteer evaluate`` wrote, of runs that were evaluated alike.

    Returns:
        What they are called -> "one_step" and "rollout" with the errors of "model", and "cost", of the first run that
        has them.
    """
    found: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for one in metrics:
        for factor, price in one.get("cost", {}).get("coarse", {}).items():
            parts = {name: {"model": one[name]["coarse"][factor]} for name in ("one_step", "rollout") if name in one}
            label = f"solver with {' × '.join(map(str, price['cells']))} cells"
            found.setdefault(int(factor), (label, parts | {"cost": price}))
    return dict(found[factor] for factor in sorted(found))


# ----------------------------------------------------------------------------------------------------- private


def _require_different_seeds(runs: Sequence[Run]) -> None:
    names: dict[Any, str] = {}
    for run in runs:
        seed = (run.config or {}).get("trainer", {}).get("seed")
        if seed is not None and (other := names.setdefault(seed, run.name)) != run.name:
            raise ValueError(
                f"{other} and {run.name} are one training with one seed ({seed}), which counts once in a mean over"
                " seeds: give one of them."
            )


_DATA = ("root", "trajectories")
_TOLD = ("split", "trajectories", "frames", "windows", "dt", "settings", "fields", "recipe")


def _told(metrics: Mapping[str, Any]) -> list[Any]:
    """What must agree. Splits may differ in size: what is in one of them does not depend on the others."""
    data = metrics["dataset"]
    recipe = {key: value for key, value in data["recipe"].items() if key not in ("splits", "batch")}
    settings = {key: value for key, value in metrics["settings"].items() if key != "rotated"}
    fields = list(metrics["one_step"]["model"]["fields"])
    return [*(data[name] for name in _TOLD[:5]), settings, fields, recipe]


def _key(run: Run, *left_out: str) -> str:
    """What runs of one group have in common, as a string; of a run without config, its name too."""
    if run.config is None:
        return json.dumps([run.model, run.name], sort_keys=True, default=str)
    config = copy.deepcopy(dict(run.config))
    for part, names in HOW.items():
        for name in names:
            config.get(part, {}).pop(name, None)
    for name in left_out:
        config.get("data", {}).pop(name, None)
    return json.dumps([run.model, config], sort_keys=True, default=str)


def _label(runs: Sequence[Run]) -> str:
    """The name of the run, or what the names of several begin with."""
    if len(runs) == 1:
        return runs[0].name
    letters = itertools.takewhile(lambda same: len(set(same)) == 1, zip(*(run.name for run in runs), strict=False))
    common = "".join(same[0] for same in letters)
    common = re.sub(r"([-_., ]*(trainer\.)?seed)?[-_., =]*\d*$", "", common)
    return common or runs[0].model.get("name", runs[0].name)


def _unique(labels: Sequence[str]) -> list[str]:
    """The labels, numbered where one comes twice."""
    counts: dict[str, int] = {}
    unique = []
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
        unique.append(label if counts[label] == 1 else f"{label} ({counts[label]})")
    return unique
