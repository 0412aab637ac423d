"""``cliffsteer verify``: check every shard of a dataset, or measure a published run again."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate, open_split, require_fit
from cliffsteer.datasets import check_shards, read_manifest, verify
from cliffsteer.evaluation import FORMAT_VERSION, differences, evaluate


def run(config: DictConfig) -> None:
    """Check what is given.

    Raises:
        UsageError: neither a dataset nor a run is given, or the run has no metrics.
        ValueError: something is wrong.
    """
    if config.run is not None:
        _run(config)
    elif config.root is not None:
        _dataset(config.root)
    else:
        raise UsageError("`root` is missing: give it as `cliffsteer verify root=...`, or a published run as `run=...`.")


def _dataset(root: str) -> None:
    """List what is wrong with a dataset, one line each."""
    problems = verify(root)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        manifest = read_manifest(root)
        more = ", with more `retries`," if manifest.failures else ""
        raise ValueError(
            f"{root} has {len(problems)} problem(s), listed above: the `cliffsteer {manifest.verb}` that made it{more}"
            " makes damaged and missing shards again."
        )
    sys.stdout.write(f"{root} is complete and sound.\n")


def _run(config: DictConfig) -> None:
    """Measure a published run again, and list what differs."""
    surrogate = load_surrogate(config.run, config.device)
    metrics = surrogate.metrics or {}
    if "settings" not in metrics:
        raise UsageError(
            f"`run` (={config.run}) was saved without the metrics of an evaluation: `cliffsteer evaluate` measures it,"
            " `cliffsteer publish` saves it with them."
        )
    if metrics.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"`run` (={config.run}) was evaluated by another cliffsteer, which wrote other metrics: `cliffsteer"
            " evaluate` and `cliffsteer publish` it again."
        )
    trajectories = open_split(surrogate, config.root, metrics["dataset"]["split"])
    require_fit(trajectories, "root", surrogate, config.run)
    check_shards(trajectories)
    again = evaluate(surrogate, trajectories, batch_size=config.batch_size, **metrics["settings"])
    found = differences(metrics, again, config.tolerance)
    for name, before, now in found:
        sys.stdout.write(f"{name}: {before} before, {now} now\n")
    if found:
        raise ValueError(
            f"`run` (={config.run}): {len(found)} metric(s) differ by more than {config.tolerance:g}, listed above."
        )
    sys.stdout.write(f"{config.run} has the metrics that it was published with.\n")
