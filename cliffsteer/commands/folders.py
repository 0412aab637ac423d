"""Where a verb writes: ``config.out``, and in a sweep a folder of its own beside it for each job."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from cliffsteer.overrides import as_typed


def output_folder(config: DictConfig) -> Path:
    """The folder to write to: ``config.out``, in a sweep with the swept values of the job appended."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return Path(config.out)
    swept = re.sub(r"(^|,)\++", r"\1", HydraConfig.get().job.override_dirname)
    suffix = re.sub(r"[^\w.=,-]+", "-", swept)
    return Path(f"{config.out}-{suffix}" if suffix else config.out)


def given_overrides() -> list[str]:
    """The overrides of this job as they were typed; Hydra merges an empty mapping away."""
    from hydra.core.hydra_config import HydraConfig

    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [as_typed(word) for word in words]


def name_swept_values(overrides: Sequence[str]) -> str:
    """The override by which the folders of a sweep's jobs are named after the keys that are swept, and no others.

    Args:
        overrides: those of the command line.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    fixed = [override.key_or_group for override in parsed if not override.is_sweep_override()]
    return f"hydra.job.config.override_dirname.exclude_keys={json.dumps(fixed)}"
