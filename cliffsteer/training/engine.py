"""`train`: from a dataset to a saved surrogate."""

from __future__ import annotations

import contextlib
import logging
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import Subset

from cliffsteer.datasets import TrajectoryDataset, WindowDataset, compute_statistics
from cliffsteer.models.matching import matched_options
from cliffsteer.normalization import Normalization
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.callbacks import Checkpoints, ProgressBar
from cliffsteer.training.config import MANNER, TrainConfig, TrainerConfig
from cliffsteer.training.data import WindowData, readers
from cliffsteer.training.examples import Examples
from cliffsteer.training.guard import DivergenceError
from cliffsteer.training.module import CHECKPOINT_VERSION, SurrogateModule, fingerprint, system
from cliffsteer.training.monitor import Monitor
from cliffsteer.training.parallel import create_strategy
from cliffsteer.training.termination import terminated
from cliffsteer.training.weights import load_weights, other_option

MAY_CHANGE = {"data.root", "trainer.steps"} | {f"{part}.{name}" for part, names in MANNER.items() for name in names}
"""What a run that goes on from a checkpoint may change; anything else would make it another run."""

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig | Mapping[str, Any],
    out: str | Path,
    resume: bool = True,
    on_start: Callable[[], None] | None = None,
) -> Path:
    """Train a surrogate.

    The same config gives the same weights, also when the training was killed and called again: initial weights and the
    order of the data depend on ``trainer.seed`` and the step alone.

    Args:
        config: the run, a `TrainConfig` or a mapping with its keys.
        out: folder of the run. Written: `checkpoints/last.ckpt`, `checkpoints/best.ckpt`, `tensorboard/`, and at the
            end `surrogate/` with the averaged weights.
        resume: go on from `checkpoints/last.ckpt` when there is one; False refuses a folder that holds a run.
        on_start: called when all is checked, before anything is written; not for a run that is trained already.

    Returns:
        The folder of the run.

    Raises:
        ValueError: a config out of range, data that do not fit it, a folder with another run, a damaged checkpoint,
            or a loss that is not a number or far above its best for long.
        RuntimeError: reader processes could not be started, or died.
        OSError: the dataset is missing, or the disk is full; `last.ckpt` is still whole.
        SystemExit: with the code 143, after SIGTERM.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.from_dict(config)
    config.check()
    out = Path(out)
    last = out / "checkpoints" / "last.ckpt"
    before = _taken_up(last, config, resume)
    done = before["global_step"] if before else 0
    if done >= config.trainer.steps and (out / "surrogate" / "config.json").is_file():
        logger.info("%s is trained already (%d steps)", out, done)
        return out
    if done > config.trainer.steps:
        raise ValueError(
            f"`trainer.steps` (={config.trainer.steps}): {out} has done {done} already; give as many or more, or"
            " another folder."
        )
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.trainer.seed)
        module, data, callbacks = _assemble(config, last, before)
        trainer = _trainer(config, out, done, callbacks)
        if on_start is not None:
            on_start()
        with readers(config.data.workers):
            _fit(trainer, module, data, last if done else None)
            if config.trainer.steps % config.trainer.validate_every or "valid/loss" not in trainer.callback_metrics:
                trainer.validate(module, datamodule=data, verbose=False)
    surrogate = module.whole_average().to("cpu")
    if trainer.is_global_zero:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("valid/")}
        surrogate.save_pretrained(out / "surrogate", config.to_dict(), metrics)
    trainer.strategy.barrier()  # no process leaves while another still needs it
    if trainer.world_size > 1 and not joined:
        torch.distributed.destroy_process_group()
    return out


def _assemble(
    config: TrainConfig, last: Path, before: Mapping[str, Any] | None
) -> tuple[SurrogateModule, WindowData, list[Any]]:
    """Network, data and callbacks of a run; statistics of the data are computed unless a checkpoint holds them.

    Raises:
        ValueError: the data are of another system than those of the checkpoint, or do not fit the config, or the
            weights of the checkpoint do not fit the network.
    """
    data, settings = config.data, config.trainer
    trajectories = TrajectoryDataset(data.root, "train", data.trajectories or None)
    if before is not None and before["system"] != system(trajectories):
        raise ValueError(
            f"`data.root` (={data.root}) holds other fields, another grid or time step than the data that this run was"
            " trained on so far: give that dataset, or another folder for the run."
        )
    if before is not None and before["data"] not in (None, fingerprint(trajectories)):
        raise ValueError(
            f"`data.root` (={data.root}) holds other trajectories than this run was trained on so far: give that"
            " dataset, or another folder for the run."
        )
    held_out = TrajectoryDataset(data.root, "valid")
    _check_length(config, trajectories.n_frames)
    windows = WindowDataset(trajectories, data.history, data.future * config.loss.unroll, data.stride)
    valid = WindowDataset(held_out, data.history, data.future, data.valid_stride)
    if len(valid) < (processes := settings.devices * settings.nodes):
        raise ValueError(
            f"`trainer.devices` × `trainer.nodes` (={processes}) are more than the {len(valid)} windows to validate on:"
            " take fewer, a smaller `data.valid_stride` or more trajectories."
        )
    if before is None:
        normalization = compute_statistics(trajectories)
    else:
        normalization = Normalization.from_dict(trajectories.spec, before["normalization"])
    surrogate = Surrogate.create(
        {"name": config.model.name, **_options(config, trajectories)},
        trajectories.spec,
        trajectories.grid,
        trajectories.dt,
        data.history,
        data.future,
        normalization,
        config.prediction,
        config.projections,
        data.hidden,
    )
    _try_out(surrogate)
    if before is None and config.model.weights:
        load_weights(surrogate, config.model.weights)
    module = SurrogateModule(surrogate, config, fingerprint(trajectories))
    if before is not None:
        _check_network(module, before, last)
    rollouts = None
    if settings.rollout_steps and settings.rollout_trajectories:
        steps = min(settings.rollout_steps, held_out.n_frames - data.history)
        starts = WindowDataset(held_out, data.history, steps, stride=held_out.n_frames)
        rollouts = Subset(starts, range(min(settings.rollout_trajectories, len(starts))))
    callbacks = [
        Checkpoints(last.parent, settings.checkpoint_every, settings.validate_every),
        Examples(valid[len(valid) // 2], rollouts, settings.images),
    ]
    if settings.progress:
        callbacks.append(ProgressBar())
    callbacks.append(Monitor(data.batch_size))
    return module, WindowData(windows, valid, data, settings.seed, settings.accumulate), callbacks


def _options(config: TrainConfig, trajectories: TrajectoryDataset) -> dict[str, Any]:
    """The network's options, its width matched to another's where that is asked for."""
    spec, data = trajectories.spec, config.data
    return matched_options(
        asdict(config.model),
        algebra=spec.algebra,
        in_channels=data.history * spec.n_multivectors + spec.n_parameter_multivectors,
        out_channels=data.future * spec.n_multivectors,
        grid=trajectories.grid,
    )


def _try_out(surrogate: Surrogate) -> None:
    """Predict from one history of zeros, so that a network that does not fit its grid is refused before it trains."""
    frames = torch.zeros(1, surrogate.history, surrogate.spec.n_blades, *surrogate.grid.shape)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            surrogate.eval()(frames, torch.zeros(1, surrogate.spec.n_parameter_blades))
        except RuntimeError as error:
            if any(word in str(error).lower() for word in ("memory", "compil")):
                raise
            text = str(error).partition("\n")[0].rstrip(".")
            raise ValueError(f"`model` does not fit the data: {text}.") from error
    surrogate.train()


def _check_network(module: SurrogateModule, before: Mapping[str, Any], last: Path) -> None:
    """Raise a ValueError when a checkpoint is of another network, be it by an option that had another default then."""
    if before["model"] and (other := other_option(before["model"], module.surrogate.model, {"strategy"})):
        name, old, new = other
        raise ValueError(
            f"`out` (={last.parents[1]}) holds a run with `model.options.{name}` {old}, this one has {new}: give"
            " another folder, or go on with the same value."
        )
    weights, expected = before["state_dict"], module.state_dict()
    wrong = sorted(weights.keys() ^ expected.keys()) or sorted(
        name for name, value in weights.items() if value.shape != expected[name].shape
    )
    if wrong:
        raise ValueError(
            f"`{last}` does not fit the network: {len(wrong)} weight(s) differ in name or shape, the first is"
            f" {wrong[0]!r}; remove it to start again, or give another folder."
        )


def _fit(trainer: Trainer, module: SurrogateModule, data: WindowData, checkpoint: Path | None) -> None:
    """Train, and raise what stopped it early: a SystemExit(143) after SIGTERM."""
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except DivergenceError as error:
        raise DivergenceError(f"{error}{_kept(last)}") from None
    except SIGTERMException:
        raise terminated() from None
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # how Lightning ends on Ctrl-C
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


def _kept(last: Path) -> str:
    """Where the last good weights are, and how to start from them; a sentence, or nothing."""
    if not last.is_file():
        return ""
    step = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    return f" {last} keeps the last good weights, of step {step}: start from them with `model.weights={last}`."


def _check_length(config: TrainConfig, n_frames: int) -> None:
    """Raise a ValueError when trajectories are too short to unroll on."""
    data, unroll = config.data, config.loss.unroll
    needed = data.history + data.future * unroll
    if unroll > 1 and needed > n_frames:
        raise ValueError(
            f"`loss.unroll` (={unroll}) needs windows of `data.history` + `loss.unroll` × `data.future` = {needed}"
            f" frames, but the trajectories have {n_frames}: take fewer calls, or generate longer trajectories."
        )


def _trainer(config: TrainConfig, out: Path, done: int, callbacks: list[Any]) -> Trainer:
    settings = config.trainer
    # values of a step stand at the number of steps done, so those of step `done` are good
    purge_step = done + 1 if done else None
    return Trainer(
        default_root_dir=out,
        logger=TensorBoardLogger(out, name="tensorboard", version="", default_hp_metric=False, purge_step=purge_step),
        callbacks=callbacks,
        max_epochs=-1,
        max_steps=settings.steps,
        val_check_interval=settings.validate_every * settings.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        accumulate_grad_batches=settings.accumulate,
        precision=settings.precision,
        accelerator=_accelerator(settings),
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=create_strategy(settings),
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )


def _accelerator(settings: TrainerConfig) -> str:
    """What "auto" stands for; a ValueError for what is not there, or cannot do what it is asked for."""
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    elif accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("`trainer.accelerator` (='gpu'): there is no CUDA device; take 'cpu' or 'auto'.")
    if accelerator == "cpu" and settings.precision == "16-mixed":
        raise ValueError(
            "`trainer.precision` (='16-mixed') needs a CUDA device: half precision scales its gradients there alone;"
            " take `precision=bfloat16` on a CPU."
        )
    return accelerator


def _taken_up(last: Path, config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    """The last checkpoint of a run, None without one.

    Raises:
        ValueError: the checkpoint is damaged, belongs to another run, or must not be there.
    """
    if not last.is_file():
        return None
    if not resume:
        raise ValueError(f"`out` (={last.parents[1]}) holds a run already: resume it, or give another folder.")
    try:
        checkpoint = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        version = checkpoint.get("format_version")
        if version == CHECKPOINT_VERSION:
            checkpoint["optimizer_states"], checkpoint["lr_schedulers"], checkpoint["loops"]  # Lightning needs them
            settings = {key: checkpoint[key] for key in _TAKEN_UP} | {key: checkpoint.get(key) for key in _NEWER}
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"`{last}` is damaged or no checkpoint of a training: remove it to start again"
            f" ({last.with_name('best.ckpt').name} beside it holds the best weights, if it is there)."
        ) from error
    if version != CHECKPOINT_VERSION:
        raise ValueError(
            f"`{last}` has format version {version}, this cliffsteer goes on from version {CHECKPOINT_VERSION}: use the"
            " cliffsteer that wrote it, or give another folder to start again."
        )
    before = _flat(TrainConfig().to_dict()) | _flat(settings["train_config"])  # with options that are newer than it
    now = _flat(config.to_dict())
    # all options that the network has, given or not, are compared with its own
    later = MAY_CHANGE | ({"model.options"} if settings["model"] else set())
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and name not in later:
            raise ValueError(
                f"`out` (={last.parents[1]}) holds a run with `{name}` {_shown(before.get(name))}, this one has"
                f" {_shown(now.get(name))}: give another folder, or go on with the same value."
            )
    return settings


def _shown(value: Any) -> Any:
    return "none" if value in ("", None) else value


_TAKEN_UP = ("global_step", "train_config", "normalization", "system", "state_dict")
_NEWER = ("model", "data")
"""What checkpoints of before did not have."""


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as {"part.key": value}."""
    parts = {name: part if isinstance(part, Mapping) else {"": part} for name, part in config.items()}
    return {f"{name}.{key}".strip("."): value for name, part in parts.items() for key, value in part.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and hints that do not apply here from the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _HINTS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


_HINTS = (
    r".*isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning 2.6 with torch 2.13
    ".*Grad strides do not match bucket view strides.*",  # weights with an axis of length 1
    ".*does not have many workers.*",  # small windows are read faster than they are used
    ".*module.* in eval mode at the start of training.*",  # the averaged network
    ".*FSDP2-wrapped module .* returned a view tensor.*",  # nothing is done in place on it
)
