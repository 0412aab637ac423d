"""Shards: HDF5 files in The Well's layout, written frame by frame and only visible when complete.

The groups ``dimensions``, ``boundary_conditions``, ``scalars``, ``t0_fields``, ``t1_fields`` and ``t2_fields`` and
their attributes are The Well's (``layout`` says which field goes where), so its readers open a shard. Frames are
float32, uncompressed, one to a chunk, the chunks of a trajectory one after another. What The Well has no place for, the
header, is kept as numbers and JSON in the attributes of the group ``cliffsteer``. The bytes depend on nothing but the
content.

Source: Ohana et al., "The Well: a large-scale collection of diverse physics simulations for machine learning" (2024).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cliffsteer.datasets.recipe import canonical_json
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid

FORMAT_VERSION = 1
GROUP = "cliffsteer"
GROUPS = ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields", GROUP)


@dataclass(frozen=True)
class Header:
    """Everything about a shard but its frames.

    Args:
        spec, grid: fields and grid of the frames.
        dt: time between frames.
        n_frames: frames of each trajectory.
        seeds: seed of each trajectory.
        parameters: components of each parameter field, one list per trajectory; they must cover the spec's.
        solver: name of the solver; also The Well's ``dataset_name``.
        options: its options, JSON-ready; the numbers among them become The Well's ``simulation_parameters``.
        recipe: the recipe that the shard comes from, JSON-ready; empty when there is none.
        start: time of the first frame.
        time_unit: unit of ``dt`` and ``start``.
        software: version of cliffsteer that wrote it.
        replaced: the seeds that diverged and were given up, in order, each with "trajectory" (its number in the split),
            "seed" and "step" (of the solver, by which values were NaN or infinite), and
            "reason" if the solver gave one.
    """

    spec: FieldSpec
    grid: Grid
    dt: float
    n_frames: int
    seeds: tuple[int, ...]
    parameters: dict[str, list[list[float]]]
    solver: str
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    start: float = 0.0
    time_unit: str = "s"
    software: str = ""
    replaced: tuple[dict[str, Any], ...] = ()

    @property
    def n_trajectories(self) -> int:
        """Number of trajectories."""
        return len(self.seeds)

    def packed_parameters(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Parameters as multivectors, shape (trajectory, blade)."""
        return self.spec.pack_parameters(self.parameters, self.n_trajectories, dtype)


def checksum_path(path: Path) -> Path:
    """Name of the file beside a shard that holds its sha256, in the form that ``sha256sum --check`` reads."""
    return path.with_name(path.name + ".sha256")


_JSON = ("options", "parameters", "recipe")
_PLAIN = {"dt": float, "n_frames": int, "start": float, "time_unit": str, "solver": str, "software": str}


def write_header(group: h5py.Group, header: Header) -> None:
    """Write a header as attributes of the group ``cliffsteer``."""
    set_attributes(group, format_version=FORMAT_VERSION, seeds=np.asarray(header.seeds, "<i8"))
    set_attributes(group, **{name: kind(getattr(header, name)) for name, kind in _PLAIN.items()})
    texts = {"spec": header.spec.to_dict(), "grid": header.grid.to_dict()}
    texts |= {name: getattr(header, name) for name in _JSON}
    if header.replaced:  # else there is no such attribute
        texts["replaced"] = list(header.replaced)
    set_attributes(group, **{name: canonical_json(value) for name, value in texts.items()})


def read_header(attributes: h5py.AttributeManager) -> Header:
    """Read what ``write_header`` wrote."""
    texts = {name: json.loads(attributes[name]) for name in _JSON}
    plain = {name: kind(attributes[name]) for name, kind in _PLAIN.items()}
    spec, grid = (json.loads(attributes[name]) for name in ("spec", "grid"))
    seeds = tuple(int(seed) for seed in attributes["seeds"])
    replaced = tuple(json.loads(attributes.get("replaced", "[]")))
    return Header(FieldSpec.from_dict(spec), Grid.from_dict(grid), seeds=seeds, replaced=replaced, **texts, **plain)


def set_attributes(owner: h5py.Group | h5py.Dataset, **values: Any) -> None:
    """Set attributes of a group or dataset; empty lists become empty lists of text."""
    for name, value in values.items():
        owner.attrs[name] = np.array([], h5py.string_dtype()) if isinstance(value, list) and not value else value
