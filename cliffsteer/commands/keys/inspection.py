"""The keys of the verbs that only look: those of each subject of ``inspect``, and of ``info``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cliffsteer.training.config import MISSING


@dataclass
class InspectKernel:
    """``cliffsteer inspect kernel``.

    Args:
        run: folder of a run; without one a fresh kernel is drawn.
        out: the figure, a PNG, PDF or SVG file by its name; by default runs/kernel.png, or in the folder of the run.
        layer: the layer of the run whose kernel is drawn; the first by default.
        signature: signs of the metric of a fresh kernel, one per axis.
        kernel: its name, "complete" or "implicit".
        kernel_size: its points along each axis.
        group: its symmetry, "O", "SO" or "orthochronous"; null is the kernel's own default.
        kernel_options: its further options; null is the kernel's own default.
        seed: of a fresh kernel's weights.
        draw: which figures, "kernel" and "basis", the poster of all equivariant maps.
        out_channel: channel of the output that is drawn.
        in_channel: channel of the input that is drawn.
        plane: the axes drawn to the right and upwards, counted from 0; by default time is upwards.
        at: where the plane cuts the other axes, in cells from the centre.
    """

    run: str | None = None
    out: str | None = None
    layer: str | None = None
    signature: list[int] = field(default_factory=list)
    kernel: str = "complete"
    kernel_size: int = 15
    group: str | None = None
    kernel_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    draw: list[str] = field(default_factory=list)
    out_channel: int = 0
    in_channel: int = 0
    plane: list[int] | None = None
    at: int = 0


@dataclass
class InspectEquivariance:
    """``cliffsteer inspect equivariance``.

    Args:
        run: folder of a run.
        out: the figure, a PNG, PDF or SVG file by its name; equivariance.png in the folder of the run by default. All
            numbers stand beside it, as JSON.
        root: folder of the dataset that the fields are taken from; that of the training by default.
        split: which split; null for random fields, without a dataset.
        elements: "all" symmetries of the lattice, "generators" of them, or "auto", all where they are few.
        paddings: what the network's padding is replaced by to compare; [] for nothing.
        wavelength: of the plane waves that sampled kernels are tried with, in cells.
        seed: of random fields, points and waves.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
    """

    run: str | None = None
    out: str | None = None
    root: str | None = None
    split: str | None = "test"
    elements: str = "auto"
    paddings: list[str] = field(default_factory=list)
    wavelength: float = 8.0
    seed: int = 0
    device: str = "cpu"


@dataclass
class InspectData:
    """``cliffsteer inspect data``.

    Args:
        root: folder of a dataset.
        split: which split; null for the first.
        trajectory: the trajectory that is drawn.
        field: field of the animation; the first by default.
        out: folder of pictures, animation and numbers; by default runs/data- and the dataset's name.
    """

    root: str | None = None
    split: str | None = "test"
    trajectory: int = 0
    field: str | None = None
    out: str | None = None


@dataclass
class Inspect(InspectData, InspectEquivariance, InspectKernel):
    """``cliffsteer inspect SUBJECT``: the keys of all subjects, each of which reads its own.

    Args:
        subject: the first word after the verb: kernel, equivariance or data; `cliffsteer inspect SUBJECT --help` lists
            its keys.
        run: folder of a run.
        root: folder of a dataset.
        split: which split.
        out: the figure, a PNG, PDF or SVG file by its name; for data a folder.
        seed: of what is drawn at random.
    """

    subject: str = MISSING


@dataclass
class Info:
    """``cliffsteer info``.

    Args:
        show: the sections listed.
        data: folder searched for datasets.
        runs: folder searched for runs.
    """

    show: list[str] = field(default_factory=list)
    data: str = "data"
    runs: str = "runs"
