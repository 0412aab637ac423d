"""Thresholds of guards: as high as they may be for a wanted rate of false alarms on held-out data, and their file."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cliffsteer.coupling.guards import Courant, Disagreement, Energy, Finite, Guard, Novelty, Residual, Violation
from cliffsteer.projection import CurlFree, DivergenceFree, Positive, PreserveMean, Projection
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Stepper
from cliffsteer.storage import replacing_file
from cliffsteer.surrogate import Surrogate

FORMAT = "cliffsteer.guards"
FORMAT_VERSION = 1
OBEYED = 1e-3
"""A law is one of the data when no frame violates it by more than this, relative to the root mean square."""
FLOOR = 1e-6
"""Thresholds are not set below this: scores there are rounding."""

logger = logging.getLogger(__name__)


def calibrate(
    guards: Sequence[Guard],
    surrogate: Stepper,
    windows: Dataset,
    rate: float = 0.01,
    steps: int = 1,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Set the thresholds of guards so that good steps trip any of them as rarely as wanted.

    Scores are taken of the surrogate's own steps from true frames, and of the ``steps`` − 1 that it makes from there on
    its own. Each guard ranks them, and the steps that are worst in any guard's ranking are the ones that may trip: all
    guards together reach the rate, none more often than the others. For N steps that are like those to come, the
    expected rate is at most the wanted one (split conformal prediction); it takes N >= 1 / rate of them.

    Args:
        guards: their ``threshold`` is set, unless it is fixed.
        surrogate: whose steps are checked.
        windows: a `WindowDataset` of held-out data, or a part of one.
        rate: wanted share of steps that trip a guard, between 0 and 1.
        steps: steps of the surrogate from each window.
        batch_size: windows scored together.

    Returns:
        JSON-ready: "rate", "steps" (how many were scored), "alarms" (share of them that trip any guard) and for each
        guard "guards": name -> {"threshold", "alarms", "median"}.

    Raises:
        ValueError: a rate or number of steps out of range, no windows, or scores that are no numbers.

    Source: Angelopoulos and Bates, "A gentle introduction to conformal prediction" (2021), section 1.1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"`rate` (={rate}) must lie between 0 and 1.")
    if steps < 1:
        raise ValueError(f"`steps` (={steps}) must be at least 1.")
    scores = _scores(guards, surrogate, windows, steps, batch_size)
    count = len(scores)
    free = [i for i, guard in enumerate(guards) if not guard.fixed]
    for i in free:
        bad = int((~torch.isfinite(scores[:, i])).sum())
        if bad:
            raise ValueError(
                f"`{guards[i].name}` has no finite score for {bad} of {count} validation steps: the surrogate fails on"
                " data like those it was trained on."
            )
    allowed = math.floor((count + 1) * rate) - 1
    if allowed < 0:
        logger.warning(
            "%d steps are too few for a rate of %g: none may trip; 1/rate = %d are needed.",
            count,
            rate,
            math.ceil(1 / rate),
        )
    if free:
        columns = scores[:, free].mT.contiguous()
        ranks = torch.searchsorted(columns.sort(1).values, columns).mT  # steps with a lower score, for each guard
        worst = ranks.amax(1).sort(descending=True).values  # in whichever guard ranks it worst
        level = int(worst[max(allowed, 0)])  # the first step that must pass
        for column, i in enumerate(free):
            passing = scores[:, i][ranks[:, column] <= level]
            guards[i].threshold = max(float(passing.max()) * (1 + FLOOR), FLOOR)
    trips = torch.stack([~(scores[:, i] <= guard.threshold) for i, guard in enumerate(guards)], 1)
    return {
        "rate": rate,
        "steps": count,
        "alarms": float(trips.any(1).double().mean()),
        "guards": {
            guard.name: {
                "threshold": guard.threshold,
                "alarms": float(trips[:, i].double().mean()),
                "median": float(scores[:, i].median()),
            }
            for i, guard in enumerate(guards)
        },
    }


def describe_guards(surrogate: Surrogate, windows: Dataset, count: int = 64) -> list[dict[str, Any]]:
    """The guards that suit a surrogate and its training data, as `create_guard` takes them.

    Finite values, energies and the distance from the data always; Courant numbers where there is a velocity; and of the
    laws (no divergence, no curl, a mean that stays, no negative values) those that the data obey.

    Args:
        surrogate: its fields, grid and scales are read.
        windows: training windows of its history and at least one frame to follow.
        count: how many of them are looked at.
    """
    stride = max(1, len(windows) // count)
    picked = [windows[i] for i in range(0, len(windows), stride)][:count]
    batch = {key: torch.stack([window[key] for window in picked]) for key in picked[0]}
    spec, before, after = surrogate.spec, batch["history"].double(), batch["future"].double()
    # what noise obeys as well is no law: the curl of a pseudoscalar, say
    noise = after + after.std() * (torch.randn(after.shape, generator=torch.Generator().manual_seed(0)) - 1)
    out: list[dict[str, Any]] = [{"kind": "finite"}]
    for field in spec.dynamic:
        if field.name == "velocity":
            out.append({"kind": "courant", "field": field.name})
        for kind in _LAWS:
            for options in ({}, {"staggered": True}) if kind == "divergence" else ({},):
                description = {"kind": kind, "field": field.name, "options": options}
                try:
                    guard = create_guard(description, surrogate)
                except ValueError:  # no such law for this field or grid
                    continue
                obeyed, says_something = (float(guard.score(before, x).amax()) for x in (after, noise))
                if obeyed < OBEYED < says_something:
                    out.append(description)
                    break
        out.append({"kind": "energy", "field": field.name})
    novelty = Novelty(spec, surrogate.field_scales)
    novelty.fit(novelty.features(before, spec.unpack_parameters(batch["parameters"])))
    return [*out, {"kind": "novelty", **novelty.state()}]


def create_guard(
    description: Mapping[str, Any],
    surrogate: Surrogate,
    short: Solver | None = None,
    members: Sequence[Stepper] = (),
) -> Guard:
    """A guard from a description.

    Args:
        description: "kind", "field" where it has one, "options" of the projection, "threshold" if it is known.
        surrogate: its fields, grid, time step and scales are read.
        short: the solver with a short time step, for "residual".
        members: further surrogates, for "disagreement".

    Raises:
        ValueError: an unknown kind, or what it needs is missing.
    """
    kind, field = description["kind"], description.get("field")
    spec, grid, normalization = surrogate.spec, surrogate.grid, surrogate.normalization
    scales = _sizes(surrogate)
    match kind:
        case "finite":
            guard: Guard = Finite()
        case "courant":
            guard = Courant(spec, grid, surrogate.dt, field)
        case "energy":
            guard = Energy(spec, field, scales[field])
        case "novelty":
            guard = Novelty(spec, scales, description["mean"], description["precision"])
        case "residual":
            if short is None:
                raise ValueError("`short` is missing: the guard 'residual' needs a solver with a short time step.")
            guard = Residual(short, surrogate.dt, normalization.deltas)
        case "disagreement":
            guard = Disagreement(members, normalization.deltas)
        case _ if kind in _LAWS:
            guard = Violation(_LAWS[kind](spec, grid, field, **description.get("options", {})), kind, scales[field])
        case _:
            raise ValueError(f"`kind` (={kind!r}) of a guard must be one of {', '.join(KINDS)}.")
    if "threshold" in description:
        guard.threshold = float(description["threshold"])
    return guard


def save_guards(
    path: str | Path, descriptions: Sequence[Mapping[str, Any]], guards: Sequence[Guard], facts: Mapping[str, Any]
) -> Path:
    """Write guards with their thresholds as JSON.

    Args:
        path: the file.
        descriptions: how `create_guard` makes the guards.
        guards: the same, calibrated.
        facts: what `calibrate` returned, and whatever else readers should know.
    """
    listed = [{**d, "threshold": guard.threshold} for d, guard in zip(descriptions, guards, strict=True)]
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "calibration": dict(facts), "guards": listed}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def load_guards(path: str | Path) -> list[dict[str, Any]]:
    """Descriptions of guards, with thresholds, from a file of `save_guards`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another format or version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `cliffsteer calibrate run={path.parent}` makes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format']} {content['format_version']}")
        return list(content["guards"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no guards that this cliffsteer reads ({error}): `cliffsteer calibrate run={path.parent}`"
            " makes it again."
        ) from error


def _mean(spec: Any, grid: Any, field: str) -> Projection:
    return PreserveMean(spec, field)


def _positive(spec: Any, grid: Any, field: str) -> Projection:
    return Positive(spec, field)


_LAWS = {"divergence": DivergenceFree, "curl": CurlFree, "mean": _mean, "negative": _positive}
KINDS = ("finite", "courant", *_LAWS, "energy", "novelty", "residual", "disagreement")
"""Kinds of guards."""


def _sizes(surrogate: Surrogate) -> dict[str, float]:
    """Root mean square of each field in the training data: of scalars, the scale is without the mean."""
    means = surrogate.normalization.means
    return {name: math.hypot(scale, means.get(name, 0.0)) for name, scale in surrogate.field_scales.items()}


def _scores(guards: Sequence[Guard], surrogate: Stepper, windows: Dataset, steps: int, batch_size: int) -> Tensor:
    """Scores of all steps, shape (step, guard), float64."""
    if not len(windows):
        raise ValueError("`windows` is empty: there is nothing to calibrate on.")
    device = next(surrogate.parameters()).device if isinstance(surrogate, torch.nn.Module) else "cpu"
    found = []
    with torch.no_grad():
        for batch in DataLoader(windows, batch_size, generator=torch.Generator()):
            frames = batch["history"].to(device)
            parameters = surrogate.spec.unpack_parameters(batch["parameters"].to(device))
            for _ in range(steps):
                proposed = surrogate.step(frames, parameters)
                scores = [guard.score(frames, proposed, parameters) for guard in guards]
                found.append(torch.stack([score.double().cpu() for score in scores], 1))
                frames = torch.cat([frames, proposed], 1)[:, -surrogate.history :]
    return torch.cat(found)
