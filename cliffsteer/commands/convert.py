"""``cliffsteer convert``: data of The Well, PDEArena or PDEBench to a dataset of cliffsteer, and back."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import given_overrides, output_folder
from cliffsteer.datasets.convert import Settings, export_dataset, import_dataset
from cliffsteer.datasets.manifest import FILE

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Convert: to a dataset of cliffsteer, or from one when ``source`` is one.

    Raises:
        UsageError: a mapping that is none.
        FileNotFoundError, ValueError, OSError: as ``import_dataset`` and ``export_dataset``.
    """
    mapping, out = _mapping(config.mapping), output_folder(config)
    if (Path(config.source) / FILE).is_file():
        for path in export_dataset(config.source, config.format, out, mapping):
            logger.info("Wrote %s.", path)
        return
    names = ("signature", "split", "batch", "dt", "spacing", "boundary", "unit", "time_unit", "name")
    settings = Settings(**{name: _plain(config[name]) for name in names})
    command = shlex.join(["cliffsteer", "convert", *given_overrides()]) if given_overrides() else None
    import_dataset(config.source, config.format, mapping, out, settings, config.progress, command)
    logger.info("The dataset is in %s; `cliffsteer verify root=%s` checks it.", out, out)


def _mapping(value: Any) -> dict[str, Any]:
    """The mapping itself, or that in a YAML file."""
    if isinstance(value, str):
        if not Path(value).is_file():
            raise UsageError(f"`mapping` (={value!r}) is no file: give a YAML file, or mapping={{velocity:vector}}.")
        value = _load(value)
    mapping = _plain(value)
    if mapping is not None and not isinstance(mapping, dict):
        raise UsageError(f"`mapping` (={mapping!r}) must say for each field its grade, as in {{velocity:vector}}.")
    return mapping or {}


def _load(path: str) -> Any:
    try:
        return _plain(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"`mapping` (={path!r}) cannot be read as YAML ({' '.join(str(error).split())}): write lines such as"
            " `velocity: vector`."
        ) from error


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
