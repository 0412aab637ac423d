"""Recipe: everything that decides the bytes of a dataset, and the seeds of its trajectories."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any

from cliffsteer.overrides import written


@dataclass(frozen=True)
class Recipe:
    """What to simulate and how to cut it into shards.

    Args:
        solver: name of a registered solver.
        options: its options, JSON values only.
        splits: number of trajectories of each split, e.g. ``{"train": 48, "valid": 8, "test": 8}``.
        frames: stored frames of a trajectory.
        every: solver steps from one stored frame to the next.
        skip: frames dropped at the start of each trajectory, so ``skip * every`` solver steps.
        batch: trajectories of one shard; they are simulated together.
        seed: seed of the dataset.

    Raises:
        ValueError: a number out of range, a split name that is no folder name, or an option that is not JSON.
    """

    solver: str
    options: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=lambda: {"train": 48, "valid": 8, "test": 8})
    frames: int = 20
    every: int = 1
    skip: int = 0
    batch: int = 4
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "options", plain("options", self.options))
        object.__setattr__(self, "splits", plain("splits", self.splits))
        for name, least in (("frames", 1), ("every", 1), ("skip", 0), ("batch", 1), ("seed", 0)):
            _check_count(name, getattr(self, name), least)
            object.__setattr__(self, name, int(getattr(self, name)))
        if not self.splits:
            raise ValueError("`splits` is empty: give at least one, e.g. {'train': 48, 'valid': 8, 'test': 8}.")
        for name, count in self.splits.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"`splits` names {name!r}, which becomes a folder: use letters, digits, '-' and '_'.")
            _check_count(f"splits[{name!r}]", count, 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``Recipe.from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe that ``to_dict`` described."""
        return cls(**data)

    def shards(self) -> Iterator[tuple[str, int, range]]:
        """(split, number of the shard, its trajectories) in order."""
        for split, count in self.splits.items():
            for number, start in enumerate(range(0, count, self.batch)):
                yield split, number, range(start, min(start + self.batch, count))


def check_file_name(name: str, value: str) -> None:
    """Raise a ValueError unless a file's name can begin with a text, so that no file leaves its folder."""
    if value != file_name(value):
        raise ValueError(
            f"`{name}` (={value!r}) becomes a file's name: use letters, digits, '-', '_' and '.', the first not '.'."
        )


def file_name(text: str) -> str:
    """A text with everything that is no letter, digit, '-', '_' or '.' replaced by '_', and no '.' at its beginning."""
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".") or "data"


def trajectory_seed(seed: int, split: str, trajectory: int, attempt: int = 0) -> int:
    """Seed of one trajectory: the upper 63 of the first 64 bits of sha256("cliffsteer/<seed>/<split>/<trajectory>").

    It depends on nothing else, so neither the number of workers nor a restart changes a byte. When that seed leads to a
    trajectory that diverges, attempt 1, 2, ... takes its place, with "/<attempt>" at the end of the text.
    """
    text = f"cliffsteer/{seed}/{split}/{trajectory}" + (f"/{attempt}" if attempt else "")
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def recipe_overrides(recipe: Recipe) -> list[str]:
    """Overrides of ``cliffsteer generate`` that give a recipe, whatever the defaults are."""
    numbers = [f"{name}={getattr(recipe, name)}" for name in ("frames", "every", "skip", "batch", "seed")]
    options = [f"++solver.{name}={written(value)}" for name, value in recipe.options.items()]
    splits = [f"++splits.{name}={count}" for name, count in recipe.splits.items()]
    return ["~recipe", f"solver={recipe.solver}", *options, *splits, *numbers]


def differences(found: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two recipes (as dicts), one phrase for each key."""
    phrases = []
    for key in sorted(found.keys() | asked.keys()):
        left, right = found.get(key, "unset"), asked.get(key, "unset")
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            phrases += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            phrases.append(f"`{prefix}{key}` is {_short(left)} there, {_short(right)} here")
    return phrases


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` (={value!r}) must be a whole number, {least} or more.")


def plain(name: str, value: Any) -> Any:
    """The value in JSON's types; a ValueError names what has none."""
    if isinstance(value, Mapping):
        return {str(key): plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(f"{name}[{i}]", item) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and abs(value) < float("inf"):
        return float(value)
    raise ValueError(f"`{name}` (={value!r}) must be JSON: finite numbers, text, true, false, none, lists or mappings.")
