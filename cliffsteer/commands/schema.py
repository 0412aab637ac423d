"""The types of the configs: a dataclass for each verb, which Hydra puts beneath the YAML files of `cliffsteer.conf`.

A key that no dataclass has, or a value of another type, is refused before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from cliffsteer.commands.errors import UsageError
from cliffsteer.suggestions import suggestion
from cliffsteer.training.config import TrainConfig

if TYPE_CHECKING:
    from omegaconf import DictConfig

MISSING = "???"


@dataclass
class Generate:
    """``cliffsteer generate``.

    Args:
        solver: its name, and its options beside it.
        n: trajectories in all, an eighth each for valid and test (at least one), the rest for train; overrides splits.
        splits: trajectories of each split.
        frames: frames stored of each trajectory.
        every: solver steps between two of them.
        skip: frames dropped at the start of each trajectory.
        batch: trajectories simulated together, which make one shard.
        seed: of the dataset; every trajectory draws from its own seed, derived from it.
        out: folder of the dataset.
        workers: processes; their number does not change a byte.
        launcher: "local" for processes of this machine, "dask" for the workers of a Dask cluster.
        scheduler: address of a running Dask scheduler, e.g. tcp://node01:8786; without one a cluster of ``workers``
            processes is started on this machine.
        retries: seeds tried for a trajectory after its first one diverged.
        card: write the data card, README.md in the folder.
        progress: show a progress bar.
    """

    solver: dict[str, Any] = field(default_factory=dict)
    n: int | None = None
    splits: dict[str, int] = field(default_factory=dict)
    frames: int = MISSING
    every: int = 1
    skip: int = 0
    batch: int = 4
    seed: int = 0
    out: str = MISSING
    workers: int = 1
    launcher: str = "local"
    scheduler: str | None = None
    retries: int = 3
    card: bool = True
    progress: bool = True


@dataclass
class Convert:
    """``cliffsteer convert``.

    Args:
        source: an HDF5 file or a folder of them, of the format; or a dataset of cliffsteer, to be written in it.
        format: "well", "pdearena" or "pdebench".
        mapping: which variables are which fields, as in {velocity:vector,pressure:scalar}, or a YAML file of that;
            optional when a dataset of cliffsteer is the source.
        out: folder of what is made.
        signature: signs of the metric, one for each axis; all + by default.
        split: where trajectories go that do not say whether they are for training, validation or test.
        batch: trajectories of one shard.
        dt: time between frames; that of the files by default, like spacing and boundary.
        spacing: size of a cell, one number or one for each axis.
        boundary: kind of boundary, one for all sides or one for each axis.
        unit: of the spacing.
        time_unit: of dt.
        name: name of the dataset; that of the data by default.
        progress: show a progress bar.
    """

    source: str = MISSING
    format: str = MISSING
    mapping: Any = None
    out: str = MISSING
    signature: list[int] | None = None
    split: str = "train"
    batch: int = 4
    dt: float | None = None
    spacing: Any = None
    boundary: Any = None
    unit: Any = "m"
    time_unit: str = "s"
    name: str | None = None
    progress: bool = True


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
    report: bool = True
    device: str = "auto"


@dataclass
class Rollout:
    """``cliffsteer rollout``.

    Args:
        run: folder of a run.
        root: folder of the dataset; that of the training by default.
        split: which split.
        trajectory: which trajectory of it.
        start: first frame read.
        steps: frames produced.
        coupling: "replace" (the surrogate alone), "alternate" (the dataset's solver and the surrogate in turns) or
            "guarded" (the surrogate, and the solver where a guard of `cliffsteer calibrate` trips).
        solver_steps: frames of the solver in a cycle of "alternate".
        surrogate_steps: frames of the surrogate in a cycle of "alternate".
        hand_back: steps after a tripped guard that go to the solver, in "guarded".
        field: field of the animation; the first by default.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
        out: folder of frames, curve and animation.
    """

    run: str = MISSING
    root: str | None = None
    split: str = "test"
    trajectory: int = 0
    start: int = 0
    steps: int = 10
    coupling: str = "replace"
    solver_steps: int = 1
    surrogate_steps: int = 4
    hand_back: int = 0
    field: str | None = None
    device: str = "auto"
    out: str = MISSING


@dataclass
class Calibrate:
    """``cliffsteer calibrate``.

    Args:
        run: folder of a run.
        root: folder of the dataset; that of the training by default.
        split: split whose steps the thresholds are set on; its train split says what is usual.
        rate: wanted share of good steps that trip a guard.
        steps: steps of the surrogate from each window that are scored; guards of long rollouts need several.
        stride: frames between two windows.
        guards: kinds of guards: finite, courant, divergence, curl, mean, negative, energy, novelty, residual; null for
            those that suit the data, but not residual, which costs two short steps of the solver.
        ensemble: folders of further runs, whose disagreement with this one is a guard.
        batch_size: windows scored together.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
    """

    run: str = MISSING
    root: str | None = None
    split: str = "valid"
    rate: float = 0.01
    steps: int = 1
    stride: int = 1
    guards: list[str] | None = None
    ensemble: list[str] = field(default_factory=list)
    batch_size: int = 16
    device: str = "auto"


@dataclass
class Tradeoff:
    """``cliffsteer tradeoff``.

    Args:
        run: folder of a run.
        root: folder of the dataset; that of the training by default.
        split: split whose seeds are run.
        couplings: replace, alternate, guarded, coarse_to_fine, correct.
        resolutions: cells a side of the solvers; by default half of the run's and as many.
        reference: cells a side of the solver that all are compared with; twice the finest of them by default.
        fine: cells a side of the solver in coarse_to_fine; twice the run's by default.
        correction: folder of a correction trained for "correct", whose grid is that of the solver in it.
        steps: frames that are predicted.
        trajectories: run as one batch.
        repeats: how often everything is timed.
        solver_steps: frames of the solver in a cycle of alternate and coarse_to_fine.
        surrogate_steps: frames of the surrogate in it.
        hand_back: steps after a tripped guard that go to the solver, in guarded.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
        out: folder of table and page.
    """

    run: str = MISSING
    root: str | None = None
    split: str = "test"
    couplings: list[str] = field(default_factory=list)
    resolutions: list[int] | None = None
    reference: int | None = None
    fine: int | None = None
    correction: str | None = None
    steps: int = 10
    trajectories: int = 4
    repeats: int = 3
    solver_steps: int = 1
    surrogate_steps: int = 4
    hand_back: int = 0
    device: str = "cpu"
    out: str = MISSING


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


@dataclass
class Demo:
    """``cliffsteer demo``: command lines of the other verbs, one after the other.

    Args:
        out: folder of everything the demo writes; each stage has its own place in it.
        generate: overrides of ``cliffsteer generate``.
        train: for each network, overrides of ``cliffsteer train``; the first one goes into the solver loop.
        steps: frames of the rollouts.
        solver_steps: frames of PhiFlow in a cycle of the alternating loop.
        surrogate_steps: frames of the surrogate in it.
        loop_trajectories: trajectories in the solver loops.
        workers: processes that simulate.
        expected: for each stage, the seconds it takes on two cores; the time left is estimated from them.
        progress: show progress bars.
    """

    out: str = "runs/demo"
    generate: list[str] = field(default_factory=list)
    train: dict[str, list[str]] = field(default_factory=dict)
    steps: int = 10
    solver_steps: int = 1
    surrogate_steps: int = 4
    loop_trajectories: int = 4
    workers: int = 2
    expected: dict[str, float] = field(default_factory=dict)
    progress: bool = True


SCHEMAS = {
    "generate": Generate,
    "convert": Convert,
    "train": Train,
    "evaluate": Evaluate,
    "rollout": Rollout,
    "calibrate": Calibrate,
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
