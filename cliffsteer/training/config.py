"""What a training run is made of: plain dataclasses, the single source of the Hydra schema and of `train`.

A length of training is always in optimiser steps. ``"???"`` marks a value that must be given, as in Hydra.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from cliffsteer.suggestions import question

MISSING = "???"


def _manner(default: Any) -> Any:
    """A field of `MANNER`."""
    return field(default=default, metadata={"manner": True})


@dataclass
class DataConfig:
    """What is read.

    Args:
        root: folder of a dataset, with its splits `train` and `valid`.
        trajectories: training trajectories, the first of them; 0 for all.
        history: frames the network reads.
        future: frames it predicts at once.
        batch_size: windows per optimiser step, over all devices and accumulated batches.
        workers: reader processes of each device; 0 reads in the training process.
        stride: frames between the starts of two training windows.
        valid_stride: the same for validation windows, which are enumerated, never drawn.
        augment: "none", or "rotations" to turn each training window by a random symmetry of its grid (quarter turns and
            reflections, of cells, components and parameters alike; time keeps its direction).
        noise: standard deviation of Gaussian noise on the frames that the network reads in training, over the scale of
            each field's changes (of the field for prediction=state); what it is to predict stays true.
        hidden: parameter fields that the network does not read, as in [coriolis].
    """

    root: str = MISSING
    trajectories: int = 0
    history: int = 4
    future: int = 1
    batch_size: int = 16
    workers: int = _manner(0)
    stride: int = 1
    valid_stride: int = 1
    augment: str = "none"
    noise: float = 0.0
    hidden: list[str] = field(default_factory=list)


@dataclass
class ModelConfig:
    """Which network: a name of `cliffsteer.models.available()` and its options.

    Args:
        name: the network.
        options: its options.
        match: "params" or "flops" to take the width (``hidden_channels``) at which the network has as many weights, or
            as many operations in a forward pass, as that of ``like``; "none" for the width given.
        like: the network to match, as in {name: csresnet, options: {hidden_channels: 24}}.
        weights: what to start from instead of random weights: the folder of a run or of a saved surrogate, or a
            checkpoint of a run; "" for random ones.
    """

    name: str = "csresnet"
    options: dict[str, Any] = field(default_factory=dict)
    match: str = "none"
    like: Any = None
    weights: str = ""


@dataclass
class LossConfig:
    """What is minimised.

    Args:
        name: "one_step" (the frames after the true history), "pushforward" (the last of ``unroll`` calls of the network
            on its own output; the calls before it get no gradient) or "unrolled" (the mean over all ``unroll`` calls).
        units: "normalized" (errors over the scale of each field's changes, or of the field for prediction=state,
            lengths in cells) or "physical" (units of fields and grid).
        weights: weight of each field in the mean over fields, by name; 1 for those left out.
        unroll: calls of the network in a training step, each gives ``data.future`` frames.
        curriculum: training steps over which the calls grow evenly from 1 to ``unroll``; 0 for all from the start.
        detach: unrolled: calls after which the gradient is cut; 0 for never.
        divergence: weight of the squared divergence of the error of vector fields, and of ∂∧F of fields of grade 2 to
            n - 1 (in space the divergence of a magnetic field).
        sobolev: weight of the squared gradient of the error (the H¹ seminorm).
        energy: weight of the squared error of ⟨|f|²⟩.
        spectral: weight of the squared error of the logarithm of the energy in each octave of wave numbers.
    """

    name: str = "one_step"
    units: str = "normalized"
    weights: dict[str, float] = field(default_factory=dict)
    unroll: int = 1
    curriculum: int = 0
    detach: int = 0
    divergence: float = 0.0
    sobolev: float = 0.0
    energy: float = 0.0
    spectral: float = 0.0

    def check(self) -> None:
        """Raise a ValueError that names an option which does nothing beside the others, or a weight out of range."""
        if self.name == "one_step" and self.unroll > 1:
            raise ValueError(f"`loss.unroll` (={self.unroll}) needs `loss.name` 'pushforward' or 'unrolled'.")
        if self.unroll < 2 and (self.name != "one_step" or self.curriculum):
            raise ValueError(
                f"`loss.unroll` (={self.unroll}) must be at least 2 for `loss.name` 'pushforward' or 'unrolled', and"
                " `loss.curriculum` goes with them: take 'one_step' for one call."
            )
        if self.detach and self.name != "unrolled":
            raise ValueError(f"`loss.detach` (={self.detach}) needs `loss.name` 'unrolled'.")
        for name, weight in self.weights.items():
            if not (isinstance(weight, Real) and not isinstance(weight, bool) and 0 <= weight < math.inf):
                raise ValueError(f"`loss.weights.{name}` (={weight!r}) must be a number of at least 0.")


@dataclass
class OptimizerConfig:
    """How weights are updated.

    Args:
        name: "adamw", "adam" or "sgd" (with Nesterov momentum betas[0]).
        lr: peak learning rate.
        weight_decay: decoupled for adamw; applied to weights of two or more axes only, never to biases and scales.
        betas: decay rates of the running moments.
        eps: added to the root of the second moment (adamw and adam).
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8

    def check(self) -> None:
        """Raise a ValueError that names an option which does nothing beside the others."""
        if self.name == "sgd" and self.eps != OptimizerConfig.eps:
            raise ValueError(
                f"`optimizer.eps` (={self.eps}) does nothing for `optimizer.name` 'sgd': leave it at"
                f" {OptimizerConfig.eps}, or take 'adamw' or 'adam'."
            )


@dataclass
class ScheduleConfig:
    """How the learning rate moves.

    Args:
        name: "cosine" (half a cosine from the peak down to the end of training) or "constant".
        warmup_steps: steps of linear rise before it.
        final_factor: last learning rate over peak learning rate (cosine).
    """

    name: str = "cosine"
    warmup_steps: int = 100
    final_factor: float = 0.01

    def check(self) -> None:
        """Raise a ValueError that names an option which does nothing beside the others."""
        if self.name == "constant" and self.final_factor != ScheduleConfig.final_factor:
            raise ValueError(
                f"`schedule.final_factor` (={self.final_factor}) does nothing for `schedule.name` 'constant': leave it"
                f" at {ScheduleConfig.final_factor}, or take 'cosine'."
            )


@dataclass
class TrainerConfig:
    """How long, how often, on what.

    Args:
        steps: optimiser steps in all.
        gradient_clip: largest norm of the gradient of all weights together; 0 leaves gradients as they are.
        validate_every: steps between validations; each also writes `checkpoints/last.ckpt`.
        checkpoint_every: steps between further writes of `checkpoints/last.ckpt`; 0 for none.
        log_every: steps between logged values.
        precision: "32-true", "bf16-mixed", "16-mixed" or "64-true", as in Lightning. In mixed precision norms, kernels
            and spectra are computed in float32 all the same.
        accelerator: "auto" (a CUDA device when there is one), "cpu" or "gpu".
        devices: number of devices of each node; for several, start the command with ``torchrun --nproc-per-node``.
        nodes: number of nodes.
        strategy: for several devices: "ddp" (each has all weights), "fsdp" (each keeps its share of them) or "auto"
            (ddp).
        accumulate: batches whose gradients are summed for an optimiser step, to save memory: ``data.batch_size`` is
            divided among them, and the result is the same.
        checkpoint_blocks: compute each block of the network again in the backward pass instead of keeping what is
            inside: less memory for about a third more time, and the same gradients.
        compile: "off", or the mode in which `torch.compile` compiles the network: "default", "reduce-overhead" or
            "max-autotune".
        divergence_factor: training stops when the loss has been this many times its best for ``divergence_steps``; 0
            for never. It always stops at a loss or gradient that is not a number.
        divergence_steps: steps in a row.
        ema_decay: decay of the running average of the weights, which is what is validated and kept; 0 for none.
        seed: of initial weights and of the order of the data.
        rollout_steps: frames of the rollouts made at validation; 0 for none.
        rollout_trajectories: how many validation trajectories are rolled out.
        images: draw example frames, errors, spectra and an animation of rollouts into TensorBoard at each validation.
        progress: show a progress bar on the terminal.
    """

    steps: int = 10_000
    gradient_clip: float = 1.0
    validate_every: int = _manner(500)
    checkpoint_every: int = _manner(100)
    log_every: int = _manner(10)
    precision: str = "32-true"
    accelerator: str = _manner("auto")
    devices: int = _manner(1)
    nodes: int = _manner(1)
    strategy: str = _manner("auto")
    accumulate: int = 1
    checkpoint_blocks: bool = _manner(False)
    compile: str = _manner("off")
    divergence_factor: float = _manner(100.0)
    divergence_steps: int = _manner(200)
    ema_decay: float = 0.999
    seed: int = 0
    rollout_steps: int = _manner(10)
    rollout_trajectories: int = _manner(4)
    images: bool = _manner(True)
    progress: bool = _manner(True)


@dataclass
class TrainConfig:
    """A training run.

    Args:
        data, model, loss, optimizer, schedule, trainer: its parts.
        prediction: "delta" (the network gives the change of the last frame) or "state" (the frame itself).
        projections: laws that the predicted frames obey by construction, in training too: "divergence_free:FIELD",
            "divergence_free_staggered:FIELD", "curl_free:FIELD", "preserve_mean:FIELD" or "positive:FIELD".
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    prediction: str = "delta"
    projections: list[str] = field(default_factory=list)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``TrainConfig.from_dict`` reads it back."""
        parts = {f.name: getattr(self, f.name) for f in fields(TrainConfig)}
        return {name: _plain(asdict(part) if is_dataclass(part) else part) for name, part in parts.items()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TrainConfig:
        """The config of a nested mapping: of ``to_dict``, or a Hydra config.

        Raises:
            ValueError: a key that does not exist, a value of the wrong type or out of its range, or a missing one.
        """
        config = _build(TrainConfig, _plain(data), "")
        config.check()
        return config

    def check(self) -> None:
        """Raise a ValueError that names the first value which is missing or out of its range."""
        if self.data.root in (MISSING, ""):
            raise ValueError("`data.root` is missing: give the folder of a dataset made by `cliffsteer generate`.")
        for part, names, lowest in _LOWER_BOUNDS:
            for name in names:
                value = getattr(getattr(self, part), name)
                if not value >= lowest:
                    raise ValueError(f"`{part}.{name}` (={value}) must be at least {lowest}.")
                if math.isinf(value):
                    raise ValueError(f"`{part}.{name}` (={value}) must be a finite number.")
        if not abs(self.trainer.seed) < 2**63:
            raise ValueError(f"`trainer.seed` (={self.trainer.seed}) must lie between -2^63 and 2^63.")
        for name, value, known in (
            ("prediction", self.prediction, ("delta", "state")),
            ("model.match", self.model.match, ("none", "params", "flops")),
            ("data.augment", self.data.augment, ("none", "rotations")),
            ("optimizer.name", self.optimizer.name, ("adamw", "adam", "sgd")),
            ("schedule.name", self.schedule.name, ("cosine", "constant")),
            ("loss.name", self.loss.name, ("one_step", "pushforward", "unrolled")),
            ("loss.units", self.loss.units, ("normalized", "physical")),
            ("trainer.accelerator", self.trainer.accelerator, ("auto", "cpu", "gpu")),
            ("trainer.precision", self.trainer.precision, ("32-true", "bf16-mixed", "16-mixed", "64-true")),
            ("trainer.strategy", self.trainer.strategy, ("auto", "ddp", "fsdp")),
            ("trainer.compile", self.trainer.compile, ("off", "default", "reduce-overhead", "max-autotune")),
        ):
            if value not in known:
                raise ValueError(f"`{name}` (={value!r}) must be one of {', '.join(known)}.{question(value, known)}")
        if not 0 < self.optimizer.lr < math.inf:
            raise ValueError(f"`optimizer.lr` (={self.optimizer.lr}) must be positive and finite.")
        if not self.trainer.ema_decay < 1:
            raise ValueError(f"`trainer.ema_decay` (={self.trainer.ema_decay}) must be below 1; 0 turns it off.")
        parts = self.trainer.devices * self.trainer.nodes * self.trainer.accumulate
        if self.data.batch_size % parts:
            raise ValueError(
                f"`data.batch_size` (={self.data.batch_size}) is shared by all devices and accumulated batches: it must"
                f" be a multiple of `trainer.devices` × `trainer.nodes` × `trainer.accumulate` (={parts})."
            )
        if self.trainer.strategy == "fsdp" and self.trainer.precision not in ("32-true", "bf16-mixed"):
            raise ValueError(
                f"`trainer.precision` (={self.trainer.precision!r}) must be '32-true' or 'bf16-mixed' where"
                " `trainer.strategy` is 'fsdp': take one of them, or 'ddp'."
            )
        for part in (self.loss, self.optimizer, self.schedule):
            part.check()


MANNER = {
    part.name: names
    for part in fields(TrainConfig)
    if is_dataclass(part.default_factory)
    and (names := tuple(f.name for f in fields(part.default_factory) if f.metadata.get("manner")))
}
"""Keys, by part, that say how a training is done and watched, not what it computes."""

_LOWER_BOUNDS = (
    ("data", ("history", "future", "batch_size", "stride", "valid_stride"), 1),
    ("data", ("trajectories", "workers", "noise"), 0),
    ("optimizer", ("weight_decay", "eps"), 0),
    ("schedule", ("warmup_steps", "final_factor"), 0),
    ("loss", ("unroll",), 1),
    ("loss", ("curriculum", "detach", "divergence", "sobolev", "energy", "spectral"), 0),
    ("trainer", ("steps", "validate_every", "log_every", "devices", "nodes", "accumulate", "divergence_steps"), 1),
    ("trainer", ("gradient_clip", "checkpoint_every", "ema_decay", "rollout_steps", "rollout_trajectories"), 0),
    ("trainer", ("divergence_factor",), 0),
)


def _build(kind: type, data: Mapping[str, Any], prefix: str) -> Any:
    """An instance of a dataclass from a mapping, nested dataclasses included."""
    known = {f.name: f for f in fields(kind)}
    if not isinstance(data, Mapping):
        name = f"`{prefix[:-1]}`" if prefix else "a training run"
        raise ValueError(f"{name} (={data!r}) must be a mapping with keys of {', '.join(known)}.")
    arguments: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise ValueError(
                f"`{prefix}{key}` is no option of a training run; there are {', '.join(prefix + k for k in known)}."
                f"{question(key, known)}"
            )
        default = known[key].default_factory() if callable(known[key].default_factory) else known[key].default
        if is_dataclass(default):
            arguments[key] = _build(type(default), value, f"{prefix}{key}.")
        else:
            arguments[key] = _typed(f"{prefix}{key}", value, default)
    return kind(**arguments)


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value as the type of its default; a whole number does for a float, a path for a string, never a bool."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    match default:
        case bool():
            fits, kind, convert = isinstance(value, bool), "true or false", bool
        case int():
            fits, kind, convert = is_number and isinstance(value, Integral), "a whole number", int
        case float():
            fits, kind, convert = is_number, "a number", float
        case str():
            fits, kind, convert = isinstance(value, str | os.PathLike), "a string", os.fspath
        case tuple():
            fits = isinstance(value, list | tuple) and len(value) == len(default)
            fits = fits and all(isinstance(v, Real) and not isinstance(v, bool) and 0 <= v < 1 for v in value)
            kind, convert = f"{len(default)} numbers from 0 to below 1", _floats
        case list():
            fits = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
            kind, convert = "a list of strings", list
        case None:
            fits, kind, convert = value is None or isinstance(value, Mapping), "a mapping", _optional
        case _:
            fits, kind, convert = isinstance(value, Mapping), "a mapping", dict
    if not fits:
        raise ValueError(f"`{name}` (={value!r}) must be {kind}.")
    return convert(value)


def _optional(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else dict(value)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _plain(value: Any) -> Any:
    """Nested mappings and sequences of any kind as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
