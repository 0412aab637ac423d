"""The keys of the verbs that train networks, measure the runs and hand them on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cliffsteer.training.config import MISSING, TrainConfig


@dataclass
class Train(TrainConfig):
    """``cliffsteer train``: a training run, and where it goes.

    Args:
        name: name of the run.
        out: its folder.
        resume: go on from the last checkpoint in the folder; false starts anew in an empty folder.
    """

    name: str = MISSING
    out: str = MISSING
    resume: bool = True


@dataclass
class Evaluate:
    """``cliffsteer evaluate``.

    Args:
        run: folder of a run.
        root: folder of the dataset; that of the training by default.
        split: which split.
        history: frames before the first predicted one; the network's own by default. Networks with different
            histories are compared on the same frames when given the largest.
        steps: frames of the rollouts; 0 for none.
        batch_size: windows evaluated together.
        stride: frames between two windows of the one-step errors.
        rotated: measure the windows turned by symmetries of the grid too, each by "one" or by "all"; or "none".
        boosted: folder of a dataset of the same system seen from moving frames, to be measured too.
        coarse: measure the solver of the data on coarser grids too, beside persistence: factors of the cells' size as
            in [2,4], or "auto", the finest one that costs no more than the network; none by default.
        report: write report.html beside the metrics.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
    """

    run: str = MISSING
    root: str | None = None
    split: str = "test"
    history: int | None = None
    steps: int = 10
    batch_size: int = 16
    stride: int = 1
    rotated: str = "one"
    boosted: str | None = None
    coarse: Any = None
    report: bool = True
    device: str = "auto"


@dataclass
class Report:
    """``cliffsteer report``.

    Args:
        runs: folders of evaluated runs, e.g. runs=[runs/a,runs/b], or one folder.
        root: folder of the dataset; that of the first run's training by default.
        title: heading.
        out: the page.
    """

    runs: Any = field(default_factory=list)
    root: str | None = None
    title: str = "cliffsteer report"
    out: str = MISSING


@dataclass
class Compare:
    """``cliffsteer compare``.

    Args:
        runs: folders of evaluated runs; they may follow the verb as plain words, `cliffsteer compare runs/*`.
        title: heading.
        out: folder of the table, the plots and the page.
    """

    runs: Any = field(default_factory=list)
    title: str = "cliffsteer comparison"
    out: str = MISSING


@dataclass
class Publish:
    """``cliffsteer publish``.

    Args:
        run: folder of an evaluated run.
        out: folder of the published surrogate: weights, config, metrics and model card.
        hub: repository on the Hugging Face hub that it is pushed to, user/name; none by default.
        private: make that repository private.
    """

    run: str = MISSING
    out: str = MISSING
    hub: str | None = None
    private: bool = False


@dataclass
class Verify:
    """``cliffsteer verify``.

    Args:
        root: folder of a dataset, whose shards are compared with their checksums; with ``run`` the dataset that it is
            measured on, by default that of its training.
        run: folder of a published surrogate, whose metrics are measured again.
        tolerance: largest relative difference of a metric.
        batch_size: windows evaluated together.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
    """

    root: str | None = None
    run: str | None = None
    tolerance: float = 1e-4
    batch_size: int = 16
    device: str = "auto"
