"""``cliffsteer inspect``: draw kernels, measure the symmetries of a trained run, look at a dataset."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.commands import schema
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import given_overrides, output_folder
from cliffsteer.commands.inspect_data import data
from cliffsteer.commands.runs import load_surrogate, open_split
from cliffsteer.commands.symmetry_table import tables
from cliffsteer.datasets import WindowDataset
from cliffsteer.diagnostics import diagnose
from cliffsteer.diagnostics_plots import equivariance_figure
from cliffsteer.evaluation import write_metrics
from cliffsteer.grid import require_same_grid
from cliffsteer.kernel_plots import basis_figure, kernel_figure
from cliffsteer.layer_errors import kernels_of
from cliffsteer.nn.kernels import create_kernel
from cliffsteer.storage import replacing_file
from cliffsteer.suggestions import question, suggestion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".pdf", ".svg")
_FRESH = ("signature", "kernel", "kernel_size", "group", "kernel_options", "seed")
_FIGURES = ("kernel", "basis")


def run(config: DictConfig) -> None:
    """Hand the config to its subject.

    Raises:
        UsageError: no subject, an unknown one, or a key that it does not read.
    """
    if OmegaConf.is_missing(config, "subject"):
        choices = " or ".join(f"`cliffsteer inspect {name}`" for name in SUBJECTS)
        raise UsageError(f"`cliffsteer inspect` needs a subject: {choices}.")
    if config.subject not in SUBJECTS:
        hint = suggestion(config.subject, SUBJECTS) or ";"
        raise UsageError(f"`inspect {config.subject}` is unknown{hint} subjects: {', '.join(SUBJECTS)}.")
    keys = [field.name for field in dataclasses.fields(schema.SUBJECTS[config.subject])]
    for key in _given():
        if key not in (*keys, "subject"):
            hint = suggestion(key, keys) or ";"
            raise UsageError(f"`{key}` is not a key of `inspect {config.subject}`{hint} its keys: {', '.join(keys)}.")
    SUBJECTS[config.subject](config)


def kernel(config: DictConfig) -> None:
    """Draw a kernel of a run, or a fresh one, and the basis of its equivariant maps.

    Raises:
        UsageError: an unknown figure or layer, or keys that contradict each other.
    """
    for name in config.draw:
        if name not in _FIGURES:
            raise UsageError(f"`draw` (={name!r}) must be of {', '.join(_FIGURES)}.{question(name, _FIGURES)}")
    if config.run is None:
        if config.layer is not None:
            raise UsageError(f"`layer` (={config.layer!r}) is a layer of a run: give the run as `run=...`.")
        module, what, default = _fresh(config), "A fresh kernel", Path("runs/kernel.png")
    else:
        if fresh := [key for key in _given() if key in _FRESH]:
            raise UsageError(f"`{fresh[0]}` is for a fresh kernel: leave it or `run` out.")
        module, layer = _trained(config)
        what, default = f"The kernel of {layer} of {config.run}", Path(config.run) / f"kernel-{layer}.png"
    target = _target(config, default)
    plane = None if config.plane is None else list(config.plane)
    title = None if config.run is None else f"{what} ({type(module).__name__})"
    if "kernel" in config.draw:
        figure = kernel_figure(module, config.out_channel, config.in_channel, plane, config.at, title)
        sys.stdout.write(f"{what}: {_save(figure, target)}\n")
    if "basis" in config.draw:
        group = getattr(module, "group", "O")
        figure = basis_figure(module.algebra, module.kernel_size, group, plane, config.at)
        path = target.with_name(f"{target.stem}-basis{target.suffix}")
        sys.stdout.write(f"The basis of its equivariant maps: {_save(figure, path)}\n")


def equivariance(config: DictConfig) -> None:
    """Measure the symmetries of a run; write a table to stdout, and a figure and JSON beside each other.

    Raises:
        UsageError: no run, or fields that are not the run's.
    """
    if config.run is None:
        raise UsageError("`run` is missing: give it as `cliffsteer inspect equivariance run=...`.")
    target = _target(config, Path(config.run) / "equivariance.png")
    surrogate = load_surrogate(config.run, config.device)
    frames = parameters = None
    source = "random fields"
    if config.split is not None:
        trajectories = open_split(surrogate, config.root, config.split)
        if trajectories.spec != surrogate.spec:
            raise UsageError(f"`root` (={trajectories.root}) holds {trajectories.spec}, the run {surrogate.spec}.")
        require_same_grid("root", trajectories.grid, surrogate.grid)
        windows = WindowDataset(trajectories, surrogate.history, 1)
        window = windows[len(windows) // 2]
        frames, parameters = window["history"][None], window["parameters"][None]
        source = f"a window of split {config.split} of {trajectories.root}"
    generator = torch.Generator().manual_seed(config.seed)
    result = diagnose(
        surrogate, frames, parameters, config.elements, list(config.paddings), config.wavelength, generator
    )
    result = {"run": str(config.run)} | result | {"input": source}
    path = write_metrics(result, target.with_suffix(".json"))
    _save(equivariance_figure(result, f"Equivariance of {config.run}, layer by layer"), target)
    for block in tables(result, f"{config.run}, measured on {source}"):
        _show(block)
    sys.stdout.write(f"All of it: {path}, figure: {target}\n")


SUBJECTS: Mapping[str, Callable[[DictConfig], None]] = {"kernel": kernel, "equivariance": equivariance, "data": data}
"""What can be inspected, by the names of `schema.SUBJECTS`."""


# ---------------------------------------------------------------------------------------------------- private


def _given() -> list[str]:
    """Names of the keys that were typed."""
    return [text.lstrip("+~").partition("=")[0].partition(".")[0] for text in given_overrides()]


def _fresh(config: DictConfig) -> nn.Module:
    options = {"group": config.group} | dict(config.kernel_options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return create_kernel(
            config.kernel, CliffordAlgebra(list(config.signature)), 1, 1, config.kernel_size, **options
        )


def _trained(config: DictConfig) -> tuple[nn.Module, str]:
    """The kernel asked for, and the name of its layer."""
    found = kernels_of(load_surrogate(config.run, "cpu").network)
    if not found:
        raise UsageError(f"`run` (={config.run}) has no layer with a steerable kernel.")
    layer = next(iter(found)) if config.layer is None else config.layer
    if layer not in found:
        hint = question(layer, found)
        raise UsageError(f"`layer` (={layer!r}) has no kernel in {config.run}.{hint} Layers: {', '.join(found)}.")
    return found[layer], layer


def _target(config: DictConfig, default: Path) -> Path:
    """The figure's file; in a sweep the swept values of the job are part of its name."""
    path = default if config.out is None else Path(config.out)
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"`out` (={path}) must end in {', '.join(_FORMATS)}, which says the format of the figure.")
    stem = output_folder(OmegaConf.create({"out": str(path.with_suffix(""))}))
    return stem.with_name(f"{stem.name}{path.suffix}")


def _save(figure: Figure, path: Path) -> Path:
    with replacing_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())
    return path


def _show(block: Any) -> None:
    """Write a table or a sentence to stdout, as wide as it needs to be where that is no terminal."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(block, soft_wrap=isinstance(block, str))
