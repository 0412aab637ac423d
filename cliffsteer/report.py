"""One self-contained HTML page about evaluated runs: table, curves, images, an animation, versions and commands."""

from __future__ import annotations

import base64
import io
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cliffsteer import __version__, plotting
from cliffsteer.comparison import coarse_solvers, frame_seconds, require_alike
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.grid import require_same_grid
from cliffsteer.report_tables import metric_tables
from cliffsteer.stepper import rollout
from cliffsteer.storage import replacing_file
from cliffsteer.surrogate import Surrogate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_VERSIONS = ("torch", "lightning", "phiflow", "hydra-core", "clifford", "numpy", "h5py")


@dataclass(frozen=True)
class Entry:
    """One network of the report.

    Args:
        name: how it is called.
        surrogate: the network.
        metrics: what `cliffsteer.evaluation.evaluate` gave for it.
        scalars: curves of its training, tag -> (steps, values).
        seconds: how long its training took, None when that is not known.
        rollouts: what `cliffsteer.report_rollouts.read_rollouts` gave for its folder.
    """

    name: str
    surrogate: Surrogate
    metrics: Mapping[str, Any]
    scalars: Mapping[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)
    seconds: float | None = None
    rollouts: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Loop:
    """Results of solver loops with a network in them.

    Args:
        text: sentences on what was run.
        curves: label -> error after each step.
        dt: time of a step, in s.
        facts: further numbers, label -> text.
    """

    text: str
    curves: Mapping[str, Sequence[float]]
    dt: float
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(
    entries: Sequence[Entry],
    trajectories: TrajectoryDataset,
    out: str | Path,
    title: str = "cliffsteer report",
    loop: Loop | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Write the page.

    Args:
        entries: the networks, evaluated on ``trajectories``.
        trajectories: held-out trajectories; the first one is shown.
        out: the file.
        title: heading.
        loop: results of solver loops.
        commands: command lines that make it all again.

    Raises:
        ValueError: no networks, or one that was evaluated on other data than the rest.
        OSError: the page cannot be written; an older one is still there.
    """
    _check(entries, trajectories)
    text = render(
        "report.html",
        title=title,
        facts=_facts(entries, trajectories),
        table=_table(entries),
        tables=metric_tables([entry.name for entry in entries], [entry.metrics for entry in entries]),
        losses=_losses(entries),
        errors=_error_figures(entries, trajectories),
        correlations=_correlation_figures(entries, trajectories),
        examples=_examples(entries, trajectories),
        rollouts=[{**r, "title": f"{entry.name}: {r['title']}"} for entry in entries for r in entry.rollouts],
        loop=loop
        and {"text": loop.text, "facts": loop.facts, "figure": png(plotting.error_curves(loop.curves, loop.dt))},
        versions=versions(),
        commands=list(commands),
    )
    out = Path(out)
    with replacing_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def render(template: str, **values: Any) -> str:
    """A template of this package, filled in; text is escaped, an unknown name is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cliffsteer"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def png(figure: Figure) -> str:
    """A figure as the address of an image that is in the page itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return _data("image/png", buffer.getvalue())


def versions() -> dict[str, str]:
    """Versions of cliffsteer and of what it stands on, and the machine."""
    found = {"cliffsteer": __version__, "Python": platform.python_version()}
    for name in SHOWN_VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return found | {"system": f"{platform.system()} {platform.machine()}, {device}"}


# ----------------------------------------------------------------------------------------------------- private


def _check(entries: Sequence[Entry], trajectories: TrajectoryDataset) -> None:
    if not entries:
        raise ValueError("`entries` is empty: a report needs at least one evaluated run.")
    require_alike([(entry.name, entry.metrics) for entry in entries])
    for entry in entries:
        if entry.surrogate.spec != trajectories.spec:
            raise ValueError(f"{entry.name} is for {entry.surrogate.spec}, but the data hold {trajectories.spec}.")
        require_same_grid(entry.name, entry.surrogate.grid, trajectories.grid)


def _facts(entries: Sequence[Entry], trajectories: TrajectoryDataset) -> dict[str, str]:
    grid, data = trajectories.grid, entries[0].metrics["dataset"]
    sides = " × ".join(f"{extent:g} {unit}" for extent, unit in zip(grid.extent, grid.unit, strict=True))
    fields = [f"{f.name} (grade {f.grade}{'' if f.unit == '1' else ', ' + f.unit})" for f in trajectories.spec.fields]
    facts = {
        "Fields": ", ".join(fields),
        "Algebra": f"signature {trajectories.spec.algebra.signature}",
        "Grid": f"{' × '.join(map(str, grid.shape))} cells, {sides}",
        "Time step": f"{trajectories.dt:g} {trajectories.manifest.time_unit} between frames",
        "Held-out data": f"{data['trajectories']} trajectories of {data['frames']} frames (split {data['split']}),"
        f" {data['windows']} one-step windows",
        "Task": f"{entries[0].surrogate.future} frame(s) from {data['history']}",
    }
    manifest = trajectories.manifest
    options = ", ".join(f"{key} {value}" for key, value in manifest.options.items() if value is not None)
    return facts | {"Solver": f"{manifest.recipe.solver} ({options})"}


def _table(entries: Sequence[Entry]) -> dict[str, Any]:
    """Header and rows; the last rows are persistence and coarse solvers, and every error is a normalised RMSE."""
    coarse = coarse_solvers([entry.metrics for entry in entries])
    names = [f.name for f in entries[0].surrogate.spec.dynamic]
    parts = {"1 step": "one_step"}
    if "rollout" in entries[0].metrics:
        parts[f"{entries[0].metrics['rollout']['steps']} steps"] = "rollout"
    header = ["Network", "Weights", "Training"]
    for title in parts:
        header += [f"{name}, {title}" for name in names] + [f"÷ persistence, {title}"]
    rows = []
    for entry in entries:
        row = [entry.name, f"{entry.metrics['weights']:,}", _duration(entry.seconds)]
        for part in parts.values():
            errors = entry.metrics[part]
            row += [_number(errors["model"]["fields"][name]["nrmse"][-1]) for name in names]
            row.append(_ratio(errors["model"]["overall"]["nrmse"][-1], errors["persistence"]["overall"]["nrmse"][-1]))
        rows.append([*row, f"{entry.metrics['equivariance']['relative_error']:.1e}"])
        if coarse:
            rows[-1].append(_milliseconds(entry.metrics))
    last = ["persistence", "0", "–"]
    for part in parts.values():
        still = entries[0].metrics[part]["persistence"]
        last += [_number(still["fields"][name]["nrmse"][-1]) for name in names] + ["1"]
    rows.append([*last, "0", *(["–"] if coarse else [])])
    for label, solver in coarse.items():
        row = [label, "0", "–"]
        for part in parts.values():
            errors, still = solver[part]["model"], entries[0].metrics[part]["persistence"]
            row += [_number(errors["fields"][name]["nrmse"][-1]) for name in names]
            row.append(_ratio(errors["overall"]["nrmse"][-1], still["overall"]["nrmse"][-1]))
        rows.append([*row, "–", _milliseconds(solver)])
    return {"header": [*header, "Symmetry violation", *(["ms a frame"] if coarse else [])], "rows": rows}


def _losses(entries: Sequence[Entry]) -> str | None:
    curves = {}
    for entry in entries:
        for tag, label in (("train/loss", "training"), ("valid/loss", "validation")):
            if tag in entry.scalars:
                curves[f"{entry.name}, {label}"] = entry.scalars[tag]
    return png(plotting.loss_curves(curves)) if curves else None


def _error_figures(entries: Sequence[Entry], trajectories: TrajectoryDataset) -> list[str]:
    """Rollout errors over time, a figure per field."""
    if "rollout" not in entries[0].metrics:
        return []
    figures = []
    for f in trajectories.spec.dynamic:
        curves = {e.name: _values(e.metrics["rollout"]["model"]["fields"][f.name]["nrmse"]) for e in entries}
        still = entries[0].metrics["rollout"]["persistence"]["fields"][f.name]["nrmse"]
        figure = plotting.error_curves(curves | {"persistence": _values(still)}, trajectories.dt, f.name)
        figures.append(png(figure))
    return figures


def _correlation_figures(entries: Sequence[Entry], trajectories: TrajectoryDataset) -> list[str]:
    """Correlation of rollouts with the truth over time, a figure per field."""
    if not all("correlation" in entry.metrics.get("rollout", {}) for entry in entries):
        return []
    figures = []
    for f in trajectories.spec.dynamic:
        curves = {
            e.name: _values(e.metrics["rollout"]["correlation"]["fields"][f.name]["correlation"]) for e in entries
        }
        unit = trajectories.manifest.time_unit
        figures.append(png(plotting.correlation_curves(curves, trajectories.dt, f.name, unit)))
    return figures


def _examples(entries: Sequence[Entry], trajectories: TrajectoryDataset) -> dict[str, Any] | None:
    """Images after one step and at the end of a rollout of the first trajectory, and its animation."""
    spec, grid = trajectories.spec, trajectories.grid
    if grid.dim < 2:
        return None
    history = entries[0].metrics["dataset"]["history"]
    steps = min(entries[0].metrics.get("rollout", {}).get("steps", 1), trajectories.n_frames - history)
    frames = trajectories.read(0, 0, history + steps)
    parameters = spec.unpack_parameters(trajectories.parameters[:1])
    sequences = {"truth": frames[history:]}
    with torch.no_grad():
        for entry in entries:
            start = frames[None, :history].to(next(entry.surrogate.parameters()).device)
            sequences[entry.name] = rollout(entry.surrogate, start, steps, parameters)[0].cpu()
    panels = {}
    for moment in sorted({0, steps - 1}):
        shown = {label: sequence[moment] for label, sequence in sequences.items()}
        errors = {f"error of {e.name}": shown[e.name] - shown["truth"] for e in entries}
        figure = plotting.field_panels(spec, grid, shown, errors)
        panels[f"After {moment + 1} step{'s' if moment else ''}"] = png(figure)
    with tempfile.TemporaryDirectory() as folder:
        path = plotting.save_animation(Path(folder) / "rollout.gif", spec, grid, sequences, trajectories.dt)
        animation = _data("image/gif", path.read_bytes())
    return {"panels": panels, "animation": animation, "field": spec.dynamic[0].name}


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _values(values: Sequence[float | None]) -> list[float]:
    """Numbers of a JSON list, in which a diverged value is null."""
    return [float("nan") if value is None else value for value in values]


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"


def _ratio(value: float | None, reference: float | None) -> str:
    return "–" if value is None or not reference else f"{value / reference:.3f}"


def _milliseconds(metrics: Mapping[str, Any]) -> str:
    """Time for a frame of one trajectory."""
    seconds = frame_seconds(metrics)
    return "–" if seconds is None else f"{1e3 * seconds:.3g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
