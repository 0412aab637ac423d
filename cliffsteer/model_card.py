"""The model card of a saved surrogate: ``README.md`` beside its weights.

All of it follows from the config that is saved with the weights, the registered solver and network, and the installed
versions: what it is, of which equation, on which fields, grid and time step, how it was trained, what was measured and
by which command, and where that ends.
"""

from __future__ import annotations

import inspect
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliffsteer.overrides import override

if TYPE_CHECKING:
    from cliffsteer.datasets import Recipe
    from cliffsteer.surrogate import Surrogate

CARD = "README.md"
MARK = "<!-- Written by cliffsteer; remove this line to keep changes of your own. -->"
"""A line of every card; a README without it is left alone."""
_GRADES = ("scalar", "vector", "bivector", "trivector", "quadrivector")


def may_write_card(folder: Path) -> bool:
    """Whether there is no ``README.md``, or one that was written here and nobody took over."""
    path = folder / CARD
    return not path.exists() or MARK in path.read_text(encoding="utf-8", errors="replace")


def model_card(surrogate: Surrogate, config: Mapping[str, Any]) -> str:
    """The text of the card, in Markdown, with the header that the Hugging Face hub reads.

    Args:
        surrogate: the surrogate.
        config: what is saved beside its weights, with training config and metrics, if known.
    """
    training, metrics = config["training_config"] or {}, config["metrics"] or {}
    recipe = _recipe(training, metrics)
    name, system = config["model"]["name"], recipe.solver if recipe else "fields of its own"
    parts = [
        "---\nlibrary_name: cliffsteer\ntags:\n- physics\n- pde\n- surrogate\n- clifford-algebra\n---",
        MARK,
        f"# {name} for {system}",
        _what(surrogate, config, metrics),
        *_data(training, recipe),
        *_fields(surrogate),
        *_grid(surrogate, metrics),
        *_network(surrogate, config),
        *_training(training, metrics),
        *_metrics(metrics, training),
        *_use(surrogate, recipe),
        *_limits(surrogate, metrics),
        *_versions(config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# ------------------------------------------------------------------------------------------------------ parts


def _what(surrogate: Surrogate, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    from cliffsteer.models import available

    unit = metrics.get("dataset", {}).get("time_unit", "s")
    line = available().get(config["model"]["name"], "")
    return (
        f"It reads {surrogate.history} frame(s), {surrogate.dt:g} {unit} apart, and predicts the next"
        f" {surrogate.future}. The network: {line}"
    )


def _data(training: Mapping[str, Any], recipe: Recipe | None) -> Iterable[str]:
    from cliffsteer import solvers
    from cliffsteer.datasets.card import system
    from cliffsteer.datasets.recipe import recipe_overrides

    yield "## Data"
    if recipe is None:
        yield "What it was trained on is not known."
        return
    try:
        solver = solvers.create(recipe.solver, **recipe.options)
    except (ValueError, ImportError):
        yield f"Made elsewhere, under the name {recipe.solver}; its equation is not known here."
        return
    yield (inspect.getdoc(type(solver)) or "").partition("\n")[0]
    yield system(solver)
    root = training.get("data", {}).get("root") or f"data/{recipe.solver}"
    command = shlex.join(["cliffsteer", "generate", *recipe_overrides(recipe), override("out", root)])
    yield f"The same data, byte for byte where the versions are the same:\n\n```bash\n{command}\n```"


def _fields(surrogate: Surrogate) -> Iterable[str]:
    spec, normalization = surrogate.spec, surrogate.normalization
    rows = []
    for f in spec.fields:
        grade = f"{f.grade} ({'pseudoscalar' if f.grade == spec.algebra.dim > 1 else _GRADES[f.grade]})"
        scale, change = (values.get(f.name) for values in (normalization.scales, normalization.deltas))
        role = f"{f.role}, not read" if f.name in surrogate.hidden else f.role
        rows.append((f.name, grade, f.unit, role, _number(scale), _number(change)))
    signature = ", ".join("+" if sign > 0 else "-" for sign in spec.algebra.signature)
    yield "## Fields"
    yield (
        f"Multivector fields; signs of the axes: {signature}. Inputs and outputs are in these units; the network"
        " sees them divided by the scales."
    )
    yield _table(("field", "grade", "unit", "role", "scale", "scale of a step's change"), rows)


def _grid(surrogate: Surrogate, metrics: Mapping[str, Any]) -> Iterable[str]:
    grid, unit = surrogate.grid, metrics.get("dataset", {}).get("time_unit", "s")
    axes = zip("xyzw", grid.shape, grid.spacing, grid.extent, grid.unit, grid.boundary, strict=False)
    rows = [(a, n, f"{h:.6g} {u}", f"{e:.6g} {u}", " / ".join(dict.fromkeys(sides))) for a, n, h, e, u, sides in axes]
    yield "## Grid and time"
    yield _table(("axis", "cells", "spacing", "length", "boundary"), rows)
    yield f"Time step: {surrogate.dt:g} {unit}."


def _network(surrogate: Surrogate, config: Mapping[str, Any]) -> Iterable[str]:
    from cliffsteer.cost import count_weights

    count = count_weights(surrogate)
    yield "## Network"
    yield f"{count:,} weights in {config['dtype']}; it predicts the {config['prediction']}."
    yield f"```json\n{json.dumps(config['model'], indent=2)}\n```"


def _training(training: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterable[str]:
    yield "## Training"
    if not training:
        yield "How it was trained is not known."
        return
    facts = metrics.get("training", {})
    told = []
    if facts.get("trajectories"):
        told.append(f"on {facts['trajectories']} trajectories")
    if facts.get("seconds"):
        told.append(f"in {facts['seconds']:.0f} s")
    if told:
        yield f"Trained {' '.join(told)}."
    yield f"```json\n{json.dumps(training, indent=2)}\n```"


def _metrics(metrics: Mapping[str, Any], training: Mapping[str, Any]) -> Iterable[str]:
    yield "## Metrics"
    if not metrics:
        yield "It was not evaluated."
        return
    if "one_step" not in metrics:
        yield "On the validation data, at the end of the training; it was not evaluated on test data:"
        rows = [(name, _number(value)) for name, value in metrics.items() if isinstance(value, int | float)]
        yield _table(("metric", "value"), rows)
        return
    data = metrics["dataset"]
    yield (
        f"On {data['trajectories']} trajectories of {data['frames']} frames of the split {data['split']},"
        f" {data['windows']} enumerated windows. NRMSE is √(E|û − u|² / E|u|²), 1 is as bad as predicting zero;"
        " persistence predicts no change."
    )
    parts = {"1 step": metrics["one_step"]}
    if "rollout" in metrics:
        parts[f"{metrics['rollout']['steps']} steps"] = metrics["rollout"]
    rows = []
    for words, part in parts.items():
        for field, values in part["model"]["fields"].items():
            still = part["persistence"]["fields"][field]["nrmse"][-1]
            rows.append((field, words, *map(_number, (values["nrmse"][-1], values["vrmse"][-1], still))))
        model, still = part["model"]["overall"], part["persistence"]["overall"]["nrmse"][-1]
        rows.append(("mean over fields", words, *map(_number, (model["nrmse"][-1], model["vrmse"][-1], still))))
    yield _table(("field", "after", "NRMSE", "VRMSE", "NRMSE of persistence"), rows)
    if command := metrics.get("command"):
        yield f"Measured by\n\n```bash\n{command}\n```"
    yield (
        "and again, on any machine that has the data, by `cliffsteer verify run=FOLDER root=DATA`, which measures every"
        " number of `config.json` anew and tells those that differ."
    )


def _use(surrogate: Surrogate, recipe: Recipe | None) -> Iterable[str]:
    parameters = ", ".join(f'"{f.name}": ...' for f in surrogate.spec.parameters)
    given = f", parameters={{{parameters}}}" if parameters else ""
    grid = ", ".join(map(str, surrogate.grid.shape))
    yield "## Use"
    yield (
        "```python\nfrom cliffsteer import Surrogate, rollout\n\n"
        'surrogate = Surrogate.from_pretrained("FOLDER")\n'
        f"# frames: (batch, {surrogate.history}, {surrogate.spec.n_blades}, {grid}), made by surrogate.spec.pack(...)\n"
        f"future = rollout(surrogate, frames, steps=10{given})\n```"
    )


def _limits(surrogate: Surrogate, metrics: Mapping[str, Any]) -> Iterable[str]:
    yield "## Limits"
    lines = [
        "It is good for fields like those that it was trained on: initial states, parameters, grid and time step of the"
        " data above. Elsewhere nothing was measured.",
    ]
    rollout = metrics.get("rollout")
    if rollout and "stable" in rollout:
        stable = rollout["stable"]
        lines.append(
            f"Rollouts were measured over {rollout['steps']} steps, of which {stable['steps']:.4g} were stable in the"
            f" mean and {stable['shortest']} in the worst case (error below {stable['limit']:g})."
        )
    else:
        lines.append("Longer rollouts were not measured.")
    if equivariance := metrics.get("equivariance"):
        error, count = equivariance["relative_error"], equivariance["symmetries"]
        kept = "It keeps" if error is not None and error < 1e-10 else "It does not keep"
        lines.append(
            f"{kept} the {count} symmetries of its grid: the largest violation in {equivariance['precision']} is"
            f" {_number(error)} of a step's change."
        )
    if rotated := metrics.get("rotated"):
        numbers = (m["one_step"]["model"]["overall"]["nrmse"][-1] for m in (rotated, metrics))
        lines.append("On a rotated test set its NRMSE after a step is {}, against {}.".format(*map(_number, numbers)))
    yield "\n".join(f"- {line}" for line in lines)


def _versions(config: Mapping[str, Any]) -> Iterable[str]:
    from cliffsteer.report import versions

    found = {"cliffsteer": config["cliffsteer_version"], **versions()}
    yield "## Versions"
    yield ", ".join(f"{name} {version}" for name, version in found.items() if name != "system") + "."


# ---------------------------------------------------------------------------------------------------- private


def _recipe(training: Mapping[str, Any], metrics: Mapping[str, Any]) -> Recipe | None:
    """The recipe of the data: of those it was evaluated on, or of the folder it was trained on, if it is there."""
    from cliffsteer.datasets import Recipe, read_manifest

    if recipe := metrics.get("dataset", {}).get("recipe"):
        return Recipe.from_dict(recipe)
    root = training.get("data", {}).get("root")
    try:
        return read_manifest(root).recipe if root else None
    except (OSError, ValueError):
        return None


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else "diverged"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines])
