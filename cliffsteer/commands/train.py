"""``cliffsteer train``: train a network on a dataset."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.datasets import TrajectoryDataset, check_shards
from cliffsteer.storage import replacing_file
from cliffsteer.training import TrainConfig, train

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Keep the config in the run folder, and train, or go on from the last checkpoint.

    Raises:
        UsageError: the folder holds a dataset.
    """
    values = OmegaConf.to_container(config, resolve=True)
    settings = TrainConfig.from_dict(
        {key: value for key, value in values.items() if key not in ("name", "out", "resume")}
    )
    out = output_folder(config)
    if (out / "dataset.json").is_file():
        raise UsageError(f"`out` (={out}) holds a dataset: give another folder for the run.")
    first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"  # torchrun's, or srun's
    if first:
        for split in ("train", "valid"):
            check_shards(TrajectoryDataset(settings.data.root, split))
    keep = functools.partial(_keep, values | {"out": str(out)}, out) if first else None
    train(settings, out, config.resume, keep)
    if first:
        logger.info("The run is in %s; next: `cliffsteer evaluate run=%s`.", out, out)


def _keep(values: dict, out: Path) -> None:
    """Write config.yaml, itself a config that ``cliffsteer train`` takes."""
    text = (
        f"# The config of this run: cliffsteer train --config-dir {out} --config-name config\n"
        "defaults:\n  - base\n  - train_schema\n  - _self_\nhydra:\n  job:\n    name: train\n"
        + OmegaConf.to_yaml(OmegaConf.create(values))
    )
    with replacing_file(out / "config.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")
