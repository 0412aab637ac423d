"""Weights to start a training from: those of a saved surrogate, of a run, or of a checkpoint."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from cliffsteer.surrogate import Surrogate


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Give a network the weights of a trained one; the scales of the fields stay those of the data.

    Args:
        network: the network of a new surrogate.
        source: the folder of a run or of a saved surrogate, or a checkpoint of a run, of which the averaged weights are
            taken.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no weights in it, or those of another network.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"`model.weights` (={source}) does not exist: give a run, a surrogate or a checkpoint.")
    weights = _of_checkpoint(source) if source.is_file() else _of_folder(source)
    expected = network.state_dict()
    wrong = sorted(weights.keys() ^ expected.keys()) or sorted(
        name for name, value in weights.items() if value.shape != expected[name].shape
    )
    if wrong:
        raise ValueError(
            f"`model.weights` (={source}) does not fit the network: {len(wrong)} weight(s) differ in name or shape, the"
            f" first is {wrong[0]!r}; give the weights of a network with the same `model.name` and `model.options`."
        )
    network.load_state_dict(weights)


def _of_folder(folder: Path) -> dict[str, Tensor]:
    inner = folder / "surrogate"
    return Surrogate.from_pretrained(inner if inner.is_dir() else folder).network.state_dict()


def _of_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"`model.weights` (={path}) is damaged or no checkpoint of a training.") from error
    for prefix in ("average.network.", "surrogate.network."):
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if found:
            return found
    raise ValueError(f"`model.weights` (={path}) holds no weights of a surrogate.")
