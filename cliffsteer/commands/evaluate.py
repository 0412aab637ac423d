"""``cliffsteer evaluate``: measure a trained run on held-out trajectories."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands.coarse import check_factors, coarse_solvers, own_cost
from cliffsteer.commands.couplings import refuse_correction
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate, open_split, read_entry, require_fit, training_facts
from cliffsteer.cost import cost
from cliffsteer.datasets import check_shards
from cliffsteer.evaluation import evaluate, write_metrics
from cliffsteer.overrides import override
from cliffsteer.report import write_report
from cliffsteer.surrogate import weights_checksum

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write metrics.json and report.html into the run folder, and a table to stdout.

    Rollouts end where the trajectories do.

    Raises:
        UsageError: a number out of its range, or a correction.
    """
    for name, least in (("steps", 0), ("batch_size", 1), ("stride", 1)):
        if config[name] < least:
            raise UsageError(f"`{name}` (={config[name]}) must be at least {least}.")
    check_factors(config.coarse)
    surrogate = load_surrogate(config.run, config.device)
    refuse_correction(surrogate, config.run)
    trajectories = open_split(surrogate, config.root, config.split)
    require_fit(trajectories, "root", surrogate, config.run)
    check_shards(trajectories)
    longest = trajectories.n_frames - (surrogate.history if config.history is None else config.history)
    steps = max(0, min(config.steps, longest))
    if steps < config.steps:
        logger.info("`steps` (=%d) is more than the trajectories have left: %d are rolled out.", config.steps, steps)
    boosted = None
    if config.boosted is not None:
        boosted = open_split(surrogate, config.boosted, config.split)
        require_fit(boosted, "boosted", surrogate, config.run)
        check_shards(boosted)
    price, solvers = cost(surrogate, config.batch_size), {}
    if config.coarse is not None:
        solvers = coarse_solvers(config.coarse, surrogate, trajectories, config.batch_size, price["seconds_per_frame"])
        price["solver"] = own_cost(surrogate, trajectories, config.batch_size)
        price["coarse"] = {str(factor): solver.cost() for factor, solver in solvers.items()}
    metrics = evaluate(
        surrogate,
        trajectories,
        config.history,
        steps,
        batch_size=config.batch_size,
        stride=config.stride,
        rotated=config.rotated,
        boosted=boosted,
        coarse={str(factor): solver.stepper for factor, solver in solvers.items()},
    )
    metrics |= {
        "cost": price,
        "training": training_facts(config.run, surrogate),
        "command": command(config),
        "weights_sha256": weights_checksum(surrogate),
    }
    path = write_metrics(metrics, Path(config.run) / "metrics.json")
    data = metrics["dataset"]
    sys.stdout.write(
        f"{config.run} on the {data['trajectories']} {data['split']} trajectories of {trajectories.root}"
        f" ({data['windows']} windows); NRMSE, and its ratio to persistence\n"
    )
    for line in table(metrics):
        sys.stdout.write(f"{line}\n")
    written = [path]
    if config.report:
        entry = read_entry(config.run)
        page = path.with_name("report.html")
        written.append(write_report([entry], trajectories, page, entry.name, commands=[metrics["command"]]))
    sys.stdout.write(f"All of it: {', '.join(map(str, written))}\n")


def command(config: DictConfig) -> str:
    """The command line that measures the same, whatever the defaults are."""
    names = ("run", "root", "split", "history", "steps", "batch_size", "stride", "rotated", "boosted", "coarse")
    values = OmegaConf.to_container(config, resolve=True)
    words = [override(name, values[name]) for name in names if values[name] is not None]
    return shlex.join(["cliffsteer", "evaluate", *words])


def table(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people: one-step and last rollout error per field, beside persistence, and the equivariance error.

    Of coarse solvers the mean over fields and the time for a frame, in ms, beside those of the network.
    """
    parts = {"one step": metrics["one_step"]}
    if "rollout" in metrics:
        parts[f"{metrics['rollout']['steps']} steps"] = metrics["rollout"]
    names = [*metrics["one_step"]["model"]["fields"], "overall"]
    yield f"  {'':10}" + "".join(f"{name:>22}" for name in names)
    for title, part in parts.items():
        cells = ""
        for name in names:
            model, still = (_last_nrmse(part[who], name) for who in ("model", "persistence"))
            cells += f"{model:>12.4g}  ({model / still:>6.3g})" if still else f"{model:>12.4g}" + " " * 10
        yield f"  {title:10}{cells}"
    for factor, price in metrics.get("cost", {}).get("coarse", {}).items():
        shown = [f"{title} {_last_nrmse(part['coarse'][factor], 'overall'):.4g}" for title, part in parts.items()]
        ratio = price["seconds_per_frame"] / metrics["cost"]["seconds_per_frame"]
        yield (
            f"  solver with {' x '.join(map(str, price['cells']))} cells, overall: {', '.join(shown)}, at {ratio:.3g}"
            " of the network's time"
        )
    for word in ("rotated", "boosted"):
        if word in metrics:
            last = {"one step": "one_step", f"{metrics.get('rollout', {}).get('steps')} steps": "rollout"}
            texts = [
                f"{title} {_last_nrmse(metrics[word][part]['model'], 'overall'):.4g}"
                for title, part in last.items()
                if part in metrics[word]
            ]
            yield f"  {word} test set, overall: {', '.join(texts)}"
    if "equivariance" in metrics:
        error, count = metrics["equivariance"]["relative_error"], metrics["equivariance"]["symmetries"]
        yield f"  largest violation of the grid's {count} symmetries, relative: {error:.2g}"


def _last_nrmse(errors: Mapping[str, Any], name: str) -> float:
    """NRMSE at the last lead time; a diverged rollout has none (null in JSON) and counts as infinite."""
    values = errors["overall"] if name == "overall" else errors["fields"][name]
    return float("inf") if values["nrmse"][-1] is None else values["nrmse"][-1]
