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
from torch.utils.data import DataLoader, Dataset, Subset

from cliffsteer.coupling.budgets import ChargeBudget, EnergyBudget, score_all
from cliffsteer.coupling.guards import Courant, Disagreement, Energy, Finite, Guard, Novelty, Residual, Violation
from cliffsteer.projection import CurlFree, DivergenceFree, Positive, PreserveMean, Projection
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Stepper
from cliffsteer.storage import replacing_file
from cliffsteer.suggestions import suggestion
from cliffsteer.surrogate import Surrogate, weights_checksum

FORMAT = "cliffsteer.guards"
FORMAT_VERSION = 2
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
    its own; `joint_thresholds` says how high all guards together may be. The rate holds for steps that are exchangeable
    with the scored ones. Steps of one rollout and overlapping windows are not independent: with few trajectories the
    rate on others may well be another, however many steps were scored.

    Args:
        guards: their ``threshold`` is set, unless it is fixed.
        surrogate: whose steps are checked.
        windows: a `WindowDataset` of held-out data, or a part of one.
        rate: wanted share of steps that trip a guard, between 0 and 1.
        steps: steps of the surrogate from each window.
        batch_size: windows scored together.

    Returns:
        JSON-ready: "rate", "bound" (of the expected rate, above the wanted one where steps are too few), "windows",
        "rollout" (``steps``), "steps" (how many were scored), "alarms" (share of them that trip any guard) and for each
        guard "guards": name -> {"threshold", "alarms", "median"}.

    Raises:
        ValueError: a rate or number of steps out of range, no windows, or scores that are no numbers.
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
    bound = 0.0
    if free:
        thresholds, bound = joint_thresholds(scores[:, free], rate)
        for i, threshold in zip(free, thresholds.tolist(), strict=True):
            guards[i].threshold = threshold
        if bound > rate:
            logger.warning(
                "%d steps are too few for a rate of %g with %d guards: none may trip, and the expected rate is at most"
                " %.3g; %d are needed.",
                *(count, rate, len(free), bound, math.ceil(len(free) / rate - 1e-9) - 1),
            )
    trips = torch.stack([~(scores[:, i] <= guard.threshold) for i, guard in enumerate(guards)], 1)
    return {
        "rate": rate,
        "bound": bound,
        "windows": len(windows),
        "rollout": steps,
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


def joint_thresholds(scores: Tensor, rate: float) -> tuple[Tensor, float]:
    """The lowest thresholds such that a fresh step trips any of K guards at most at a rate.

    Each guard ranks the N steps, and those that are worst in any guard's ranking may trip, so that no guard trips more
    often than the others. The m that may are

        m = ⌊(N + 1) rate⌋ − K

    since a step that is exchangeable with the N trips any guard with probability ≤ (m + K) / (N + 1): among the N + 1,
    each judged by thresholds from the others, at most m + K trip. With one guard that is split conformal prediction. It
    takes N ≥ K / rate − 1; with fewer, m is 0 and the bound K / (N + 1).

    Args:
        scores: shape (step, guard).
        rate: between 0 and 1.

    Returns:
        The largest scores that pass, (guard,), and the bound.

    Source: Angelopoulos and Bates, "A gentle introduction to conformal prediction" (2021), section 1.1, for one guard.
    """
    count, n_guards = scores.shape
    allowed = max(math.floor((count + 1) * rate + 1e-9) - n_guards, 0)
    # the bound needs ranks without ties, but for scores below every threshold, which never trip
    ranks = scores.argsort(dim=0, stable=True).argsort(0).masked_fill(scores <= FLOOR, 0)
    worst = ranks.amax(1).sort(descending=True).values
    level = int(worst[min(allowed, count - 1)])  # of the first step that must pass
    passing = scores.masked_fill(ranks > level, -math.inf).amax(0)
    return (passing * (1 + FLOOR)).clamp_min(FLOOR), (allowed + n_guards) / (count + 1)


def describe_guards(
    surrogate: Surrogate, windows: Dataset, count: int = 512, batch_size: int = 16, budgets: bool = False
) -> list[dict[str, Any]]:
    """The guards that suit a surrogate and its training data, as `create_guard` takes them.

    Finite values, energies and the distance from the data always; Courant numbers where there is a velocity; and of the
    laws (no divergence, no curl, a mean that stays, no negative values) those that the data obey.

    Args:
        surrogate: its fields, grid and scales are read.
        windows: training windows of its history and at least one frame to follow.
        count: how many of them are looked at, drawn by chance with a fixed seed; all where there are fewer.
        batch_size: windows looked at together.
        budgets: also of all energies, and of the means that stay: for rollouts of several steps.
    """
    generator, spec = torch.Generator().manual_seed(0), surrogate.spec
    laws = _candidates(surrogate)
    violated, violated_by_noise = ([0.0] * len(laws) for _ in range(2))
    novelty, features = Novelty(spec, _sizes(surrogate)), []
    drawn = torch.randperm(len(windows), generator=generator)[:count].tolist()
    for batch in DataLoader(Subset(windows, drawn), batch_size, generator=torch.Generator()):
        before, after = batch["history"].double(), batch["future"].double()
        # what noise obeys as well is no law: the curl of a pseudoscalar, say
        noise = after + after.std() * (torch.randn(after.shape, generator=generator) - 1)
        for i, (_, guard) in enumerate(laws):
            violated[i] = max(violated[i], float(guard.score(before, after).amax()))
            violated_by_noise[i] = max(violated_by_noise[i], float(guard.score(before, noise).amax()))
        features.append(novelty.features(before, spec.unpack_parameters(batch["parameters"])))
    novelty.fit(torch.cat(features))
    obeyed: dict[tuple[str, str], dict[str, Any]] = {}
    for (description, _), of_data, of_noise in zip(laws, violated, violated_by_noise, strict=True):
        if of_data < OBEYED < of_noise:
            obeyed.setdefault((description["field"], description["kind"]), description)
    out: list[dict[str, Any]] = [{"kind": "finite"}]
    for field in spec.dynamic:
        if field.name == "velocity":
            out.append({"kind": "courant", "field": field.name})
        out += [description for (name, _), description in obeyed.items() if name == field.name]
        out.append({"kind": "energy", "field": field.name})
        if budgets:
            kinds = ("energy_budget", *(["charge_budget"] if (field.name, "mean") in obeyed else []))
            out += [{"kind": kind, "field": field.name} for kind in kinds]
    return [*out, {"kind": "novelty", **novelty.state()}]


def create_guard(
    description: Mapping[str, Any],
    surrogate: Surrogate,
    short: Solver | None = None,
    members: Sequence[Stepper] = (),
) -> Guard:
    """A guard from a description.

    Args:
        description: "kind", "field" where it has one, "options" of the projection, "threshold" if it is known, and
            "weights_sha256" and "members_sha256" if it was set for certain weights, of the surrogate and of members.
        surrogate: its fields, grid, time step and scales are read.
        short: the solver with a short time step, for "residual".
        members: further surrogates, for "disagreement".

    Raises:
        ValueError: an unknown kind or field, a threshold that is no number or of other weights, or what the guard needs
            is missing.
    """
    spec, grid, normalization = surrogate.spec, surrogate.grid, surrogate.normalization
    _check(description)
    kind, field = description["kind"], description.get("field")
    names = [f.name for f in spec.dynamic]
    if kind in _OF_FIELDS and field not in names:
        hint = suggestion(field, names) or ";"
        raise ValueError(f"`field` (={field!r}) of a guard {kind!r} is unknown{hint} fields: {', '.join(names)}.")
    if description.get("weights_sha256") not in (None, weights_checksum(surrogate)):
        raise ValueError(
            f"`threshold` of the guard {kind!r} was set for other weights than those of this surrogate: `cliffsteer"
            " calibrate` sets it again."
        )
    scales = _sizes(surrogate)
    match kind:
        case "finite":
            guard: Guard = Finite()
        case "courant":
            guard = Courant(spec, grid, surrogate.dt, field)
        case "energy":
            guard = Energy(spec, field, scales[field])
        case "energy_budget":
            guard = EnergyBudget(spec, field, scales[field])
        case "charge_budget":
            guard = ChargeBudget(spec, field, scales[field])
        case "novelty":
            guard = Novelty(spec, scales, description["mean"], description["precision"])
        case "residual":
            if short is None:
                raise ValueError("`short` is missing: the guard 'residual' needs a solver with a short time step.")
            guard = Residual(short, surrogate.dt, normalization.deltas)
        case "disagreement":
            guard = Disagreement(members, normalization.deltas)
            if description.get("members_sha256") not in (None, _checksums(members)):
                raise ValueError(
                    f"`threshold` of the guard {kind!r} was set for other weights than those of these members:"
                    " `cliffsteer calibrate` sets it again."
                )
        case _:
            guard = Violation(_LAWS[kind](spec, grid, field, **description.get("options", {})), kind, scales[field])
    if "threshold" in description:
        guard.threshold = float(description["threshold"])
    return guard


def save_guards(
    path: str | Path,
    descriptions: Sequence[Mapping[str, Any]],
    guards: Sequence[Guard],
    facts: Mapping[str, Any],
    surrogate: Surrogate,
) -> Path:
    """Write guards with their thresholds as JSON.

    Args:
        path: the file.
        descriptions: how `create_guard` makes the guards.
        guards: the same, calibrated.
        facts: what `calibrate` returned, and whatever else readers should know.
        surrogate: whose steps they were calibrated on; the thresholds go with its weights, and with those of the
            members of an ensemble.
    """
    listed = [{**d, "threshold": guard.threshold} for d, guard in zip(descriptions, guards, strict=True)]
    for entry, guard in zip(listed, guards, strict=True):
        if isinstance(guard, Disagreement):
            entry["members_sha256"] = _checksums(guard.members)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": weights_checksum(surrogate),
        "calibration": dict(facts),
        "guards": listed,
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def load_guards(path: str | Path) -> list[dict[str, Any]]:
    """Descriptions of guards, with thresholds, the weights and the length of rollouts that they are for, from a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, one of another format or version, or a guard of which something is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `cliffsteer calibrate run={path.parent}` makes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format']} {content['format_version']}")
        of_all = {"weights_sha256": content["weights_sha256"], "rollout": content["calibration"].get("rollout", 1)}
        found = [{**guard, **of_all} for guard in content["guards"]]
        for description in found:
            _check(description, "threshold", *(["members_sha256"] if description.get("kind") == "disagreement" else ()))
        return found
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
KINDS = (
    *("finite", "courant", *_LAWS, "energy", "energy_budget", "charge_budget"),
    *("novelty", "residual", "disagreement"),
)
"""Kinds of guards."""
BUDGETS = tuple(kind for kind in KINDS if kind.endswith("_budget"))
"""Those that add up over a rollout."""
_OF_FIELDS = ("courant", *_LAWS, "energy", "energy_budget", "charge_budget")


def _check(description: Mapping[str, Any], *further: str) -> None:
    """Raise a ValueError for a description of a guard that does not exist, or that lacks what it needs."""
    kind = description.get("kind")
    if kind not in KINDS:
        raise ValueError(f"`kind` (={kind!r}) of a guard must be one of {', '.join(KINDS)}.")
    needed = {"novelty": ("mean", "precision")}.get(kind, ("field",) if kind in _OF_FIELDS else ())
    for key in (*needed, *further):
        if key not in description:
            raise ValueError(f"`{key}` of the guard {kind!r} is missing.")
    threshold = description.get("threshold", 0.0)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not math.isfinite(threshold):
        raise ValueError(f"`threshold` (={threshold!r}) of the guard {kind!r} must be a finite number.")


def _checksums(members: Sequence[Stepper]) -> list[str | None]:
    """Of the weights of each; None for what is no `Surrogate`."""
    return [weights_checksum(member) if isinstance(member, Surrogate) else None for member in members]


def _candidates(surrogate: Surrogate) -> list[tuple[dict[str, Any], Guard]]:
    """Every law that a field may obey, as description and guard; of several kinds of one law the first is preferred."""
    out = []
    for field in surrogate.spec.dynamic:
        for kind in _LAWS:
            for options in ({}, {"staggered": True}) if kind == "divergence" else ({},):
                description = {"kind": kind, "field": field.name, "options": options}
                try:
                    out.append((description, create_guard(description, surrogate)))
                except ValueError:  # no such law for this field or grid
                    continue
    return out


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
            spent: dict[str, Tensor] = {}
            for _ in range(steps):
                proposed = surrogate.step(frames, parameters)
                scores, spent = score_all(guards, frames, proposed, parameters, spent)
                found.append(torch.stack([score.double().cpu() for score in scores], 1))
                frames = torch.cat([frames, proposed], 1)[:, -surrogate.history :]
    return torch.cat(found)
