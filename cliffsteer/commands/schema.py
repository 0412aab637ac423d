"""The types of the configs: a dataclass of `keys` for each verb, which Hydra puts beneath its YAML in `conf`.

A key that no dataclass has, or a value of another type, is refused before anything runs.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.keys.data import Convert, Generate
from cliffsteer.commands.keys.demo import Demo
from cliffsteer.commands.keys.inspection import Info, Inspect, InspectData, InspectEquivariance, InspectKernel
from cliffsteer.commands.keys.loops import Calibrate, Correct, Rollout, Tradeoff
from cliffsteer.commands.keys.runs import Compare, Evaluate, Publish, Report, Train, Verify
from cliffsteer.suggestions import suggestion

if TYPE_CHECKING:
    from omegaconf import DictConfig

SCHEMAS = {
    "generate": Generate,
    "convert": Convert,
    "train": Train,
    "evaluate": Evaluate,
    "rollout": Rollout,
    "calibrate": Calibrate,
    "correct": Correct,
    "tradeoff": Tradeoff,
    "report": Report,
    "compare": Compare,
    "publish": Publish,
    "inspect": Inspect,
    "info": Info,
    "verify": Verify,
    "demo": Demo,
}

SUBJECTS = {"kernel": InspectKernel, "equivariance": InspectEquivariance, "data": InspectData}
"""The keys that each subject of ``inspect`` reads."""


def check(verb: str, config: DictConfig) -> None:
    """Refuse what Hydra lets through.

    Raises:
        UsageError: a key that was added with `+` and that the verb does not read, or an empty `out`.
    """
    known = [f.name for f in fields(SCHEMAS[verb])]
    for key in map(str, config):
        if key not in known:
            hint = suggestion(key, known) or ";"
            raise UsageError(f"`{key}` is not a key of `cliffsteer {verb}`{hint} its keys: {', '.join(known)}.")
    if config.get("out") is not None and not config.out.strip():
        raise UsageError("`out` is empty: say where to write.")


def register() -> None:
    """Tell Hydra the schemas, what keys mean, and the solvers of other packages (which need no YAML file)."""
    from importlib.metadata import entry_points

    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from cliffsteer.commands.listing import key_help, options
    from cliffsteer.solvers.registry import GROUP

    def help_for(name: str) -> str:
        verb, _, subject = name.partition(" ")
        return key_help(SUBJECTS.get(subject, SCHEMAS[verb]))

    OmegaConf.register_new_resolver("key_help", help_for, replace=True)
    store = ConfigStore.instance()
    for verb, schema in SCHEMAS.items():
        store.store(name=f"{verb}_schema", node=schema)
    for name in {point.name for point in entry_points(group=GROUP)} - set(options("solver")):
        store.store(group="solver", name=name, node={"name": name})
