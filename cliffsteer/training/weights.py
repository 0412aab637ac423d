"""Weights to start a training from: those of a saved surrogate, of a run, or of a checkpoint."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliffsteer.models import with_defaults
from cliffsteer.surrogate import Surrogate


def load_weights(surrogate: Surrogate, source: str | Path) -> None:
    """Give a surrogate the weights of a trained one; the scales of the fields stay those of the data.

    Options that do not show in the weights, such as dilations, must agree where the source tells them, but for the
    padding and the strategy.

    Args:
        surrogate: a new surrogate.
        source: the folder of a run or of a saved surrogate, or a checkpoint of a run, of which the averaged weights are
            taken.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no weights in it, or those of another network.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"`model.weights` (={source}) does not exist: give a run, a surrogate or a checkpoint.")
    if source.is_file():
        weights, model = _of_checkpoint(source)
    else:
        trained = _of_folder(source)
        weights, model = trained.network.state_dict(), trained.model
    network = surrogate.network
    expected = network.state_dict()
    wrong = sorted(weights.keys() ^ expected.keys()) or sorted(
        name for name, value in weights.items() if value.shape != expected[name].shape
    )
    if wrong:
        raise ValueError(
            f"`model.weights` (={source}) does not fit the network: {len(wrong)} weight(s) differ in name or shape, the"
            f" first is {wrong[0]!r}; give the weights of a network with the same `model.name` and `model.options`."
        )
    if model and (other := other_option(model, surrogate.model or {}, {"padding", "extent", "strategy"})):
        name, before, now = other
        raise ValueError(
            f"`model.weights` (={source}) are of a network with `{name}` {before}, this one has {now}: give"
            f" model.options.{name} the same value."
        )
    network.load_state_dict(weights)


def _of_folder(folder: Path) -> Surrogate:
    inner = folder / "surrogate"
    return Surrogate.from_pretrained(inner if inner.is_dir() else folder)


def other_option(
    before: Mapping[str, Any], now: Mapping[str, Any], may_differ: Set[str]
) -> tuple[str, Any, Any] | None:
    """The first option, with both its values, in which two networks of one kind differ though their weights may not."""
    before, now = _given(before), _given(now)
    if before.get("name") != now.get("name"):
        return None
    for name in sorted((before.keys() | now.keys()) - may_differ):
        if before.get(name) != now.get(name):
            return name, before.get(name), now.get(name)
    return None


def kept_model(model: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name and options of a network with its defaults, in the types of JSON, as a checkpoint holds them."""
    return json.loads(json.dumps(with_defaults(model or {}), default=str))


def _of_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Averaged weights, and the network's name and options if the checkpoint has them."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = checkpoint["state_dict"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"`model.weights` (={path}) is damaged or no checkpoint of a training.") from error
    for prefix in ("average.network.", "surrogate.network."):
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if found:
            return found, checkpoint.get("model")
    raise ValueError(f"`model.weights` (={path}) holds no weights of a surrogate.")


def _given(model: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a network as a file would hold them, without those of kernels that are left to them."""
    options = kept_model(model)
    kernel = {name: value for name, value in (options.get("kernel_options") or {}).items() if value is not None}
    return options | {"kernel_options": kernel}
