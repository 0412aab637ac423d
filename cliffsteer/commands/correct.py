"""``cliffsteer correct``: train a correction of a coarse solver on a dataset of a fine one, inside the coarse loop."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands.couplings import native_recipe, native_solver, with_frame_step
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.folders import output_folder
from cliffsteer.commands.runs import device_of
from cliffsteer.coupling import Correct
from cliffsteer.coupling.coarse_windows import CoarseWindows
from cliffsteer.coupling.correction_training import CorrectionConfig, CorrectionTraining, correction_scales
from cliffsteer.datasets import TrajectoryDataset, check_shards
from cliffsteer.metrics import FieldErrors
from cliffsteer.models.matching import matched_options
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Stepper, rollout
from cliffsteer.storage import replacing_file
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.config import ModelConfig, OptimizerConfig, ScheduleConfig
from cliffsteer.training.termination import terminable
from cliffsteer.training.weights import load_weights

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    *("device", "progress", "checkpoint_every", "log_every", "rollout_steps", "save_memory", "name", "out", "resume"),
)
"""What a training that goes on from a checkpoint may change."""


def run(config: DictConfig) -> None:
    """Train, or go on from the last checkpoint, and write the correction into the run folder.

    Raises:
        UsageError: a number out of its range, a resolution that is not coarser, or a folder of another run.
    """
    _check(config)
    values = OmegaConf.to_container(config, resolve=True)
    out, device = output_folder(config), device_of(config.device)
    if (out / "dataset.json").is_file():
        raise UsageError(f"`out` (={out}) holds a dataset: give another folder for the run.")
    train = TrajectoryDataset(config.root, "train", config.trajectories or None)
    valid = TrajectoryDataset(config.root, "valid")
    for split in (train, valid):
        check_shards(split)
    solver = coarse_solver(train, config.resolution, values["options"])
    every = train.manifest.recipe.every
    stepper = with_frame_step(solver, every)
    windows = CoarseWindows(train, solver, max(1, config.history - 1), config.unroll)
    correction = _create(values, stepper, windows).to(device)
    names = ("steps", "batch_size", "unroll", "gradient_clip", "seed")
    settings = CorrectionConfig(
        **{name: values[name] for name in names},
        checkpoint=config.save_memory,
        optimizer=OptimizerConfig(**values["optimizer"]),
        schedule=ScheduleConfig(**values["schedule"]),
    )
    training = CorrectionTraining(Correct(stepper, correction), windows, settings)
    kept = {key: value for key, value in values.items() if key not in MAY_CHANGE}
    last = out / "checkpoints" / "last.ckpt"
    _take_up(training, last, kept, config.resume)
    if training.step < config.steps:
        _train(training, out, kept, config)
    correction = training.finish().to("cpu")
    measured = measure(stepper, correction, CoarseWindows(valid, solver, windows.history, 1), config.rollout_steps)
    name, options = native_recipe(train, config.resolution, values["options"])
    description = {"solver": {"name": name, "options": options}}
    about = {"data": {"root": str(config.root), "trajectories": config.trajectories, "history": config.history}}
    about |= {key: values[key] for key in ("model", "optimizer", "schedule")}
    about["correction"] = description | {"every": every, **{name: values[name] for name in names}}
    correction.save_pretrained(out / "surrogate", about, measured)
    steps = measured["steps"]
    sys.stdout.write(
        f"NRMSE after {steps} steps on the valid split, mean over fields: {measured['solver']:.4g} of the coarse solver"
        f" alone, {measured['corrected']:.4g} corrected\n"
        f"The correction is in {out}; `cliffsteer tradeoff run={out} couplings=[correct]` measures its worth\n"
    )


def coarse_solver(trajectories: TrajectoryDataset, resolution: int, options: Mapping[str, Any]) -> Solver:
    """The native solver of a dataset's equations at a lower resolution.

    Raises:
        UsageError: not coarser than the data, or another time step or other fields than theirs.
    """
    solver = native_solver(trajectories, resolution, options)
    if not all(n < m for n, m in zip(solver.grid.shape, trajectories.grid.shape, strict=True)):
        raise UsageError(
            f"`resolution` (={resolution}) gives {solver.grid.shape} cells, the dataset has {trajectories.grid.shape}:"
            " take a coarser one, or the dataset of a finer solver."
        )
    if abs(solver.dt * trajectories.manifest.recipe.every - trajectories.dt) > 1e-9 * trajectories.dt:
        raise UsageError(f"`options` change the time step to {solver.dt:g}: frames must be as far apart as the data's.")
    return solver


def measure(solver: Stepper, correction: Surrogate, windows: CoarseWindows, steps: int) -> dict[str, Any]:
    """Errors of the coarse solver with and without the correction, after some steps from the first frames.

    Args:
        solver: the coarse solver.
        correction: the correction.
        windows: held-out data on the coarse grid.
        steps: frames of the rollouts, cut to what the trajectories have.

    Returns:
        "steps", and NRMSE, the mean over fields, after the last of them: "solver", "corrected".
    """
    coupling, frames = Correct(solver, correction), windows.frames
    first = max(1, coupling.history)
    steps = min(steps, frames.shape[1] - first)
    parameters = solver.spec.unpack_parameters(windows.parameters)
    out: dict[str, Any] = {"steps": steps}
    with torch.no_grad():
        for name, stepper in (("solver", solver), ("corrected", coupling)):
            found = FieldErrors(solver.spec, steps)
            found.update(rollout(stepper, frames[:, :first], steps, parameters), frames[:, first : first + steps])
            out[name] = found.compute()["overall"]["nrmse"][-1]
    return out


# ----------------------------------------------------------------------------------------------------- private


def _check(config: DictConfig) -> None:
    least = {"resolution": 1, "trajectories": 0, "history": 1, "unroll": 1, "steps": 1, "batch_size": 1}
    least |= {"gradient_clip": 0, "checkpoint_every": 1, "log_every": 1, "rollout_steps": 1}
    for name, value in least.items():
        if not config[name] >= value:
            raise UsageError(f"`{name}` (={config[name]}) must be at least {value}.")
    if not config.optimizer.lr > 0:
        raise UsageError(f"`optimizer.lr` (={config.optimizer.lr}) must be positive.")


def _create(values: Mapping[str, Any], solver: Stepper, windows: CoarseWindows) -> Surrogate:
    """The untrained correction; initial weights depend on the seed alone."""
    spec, history, model = solver.spec, values["history"], ModelConfig(**values["model"])
    into = history * spec.n_multivectors + spec.n_parameter_multivectors
    fitted = matched_options(
        asdict(model), algebra=spec.algebra, in_channels=into, out_channels=spec.n_multivectors, grid=solver.grid
    )
    scales = correction_scales(solver, windows, values["batch_size"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(values["seed"])
        correction = Surrogate.create(
            {"name": model.name, **fitted}, spec, solver.grid, solver.dt, history, 1, scales, "delta"
        )
    if model.weights:
        load_weights(correction, model.weights)
    return correction


def _take_up(training: CorrectionTraining, last: Path, kept: Mapping[str, Any], resume: bool) -> None:
    """Go on from a checkpoint, if there is one.

    Raises:
        UsageError: a damaged checkpoint, one of another training, or one that must not be there.
    """
    if not last.is_file():
        return
    if not resume:
        raise UsageError(f"`out` (={last.parents[1]}) holds a run already: resume it, or give another folder.")
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)
        before = state["config"]
        if other := _first_difference(before, kept):
            key, old, new = other
            raise UsageError(
                f"`out` (={last.parents[1]}) holds a correction with `{key}` {old}, this one has {new}: give another"
                " folder, or go on with the same value."
            )
        training.load_state_dict(state["training"])
    except (RuntimeError, EOFError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise UsageError(f"`{last}` is damaged or no checkpoint of a correction: remove it to start again.") from error


def _first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first key of two nested mappings, as in "model.options.blocks", whose values differ, with both."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return None if before == now else (name, before, now)
    pairs = ((key, before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys()))
    found = (_first_difference(old, new, f"{name}.{key}".strip(".")) for key, old, new in pairs)
    return next((difference for difference in found if difference), None)


def _train(training: CorrectionTraining, out: Path, kept: Mapping[str, Any], config: DictConfig) -> None:
    """Train to the end; the checkpoint is written every few steps and at an interrupt, a killed process loses a few."""
    from torch.utils.tensorboard import SummaryWriter

    last, begun, total = out / "checkpoints" / "last.ckpt", training.step, config.steps
    losses: list[float] = []

    def save() -> None:
        with replacing_file(last) as temporary:
            torch.save({"config": dict(kept), "training": training.state_dict()}, temporary)

    with (
        terminable(),
        SummaryWriter(str(out / "tensorboard"), purge_step=begun or None) as writer,
        _progress(config.progress, begun, total) as show,
    ):
        while training.step < total:
            try:
                losses.append(training.advance())
            except (KeyboardInterrupt, SystemExit):
                if training.is_whole and training.step > begun:
                    save()
                raise
            if training.step % config.log_every == 0 or training.step == total:
                writer.add_scalar("train/loss", sum(losses) / len(losses), training.step)
                losses = losses[-1:]
            show(training.step, losses[-1])
            if training.step % config.checkpoint_every == 0 or training.step == total:
                save()


@contextmanager
def _progress(enabled: bool, done: int, total: int) -> Iterator[Callable[[int, float], None]]:
    """A bar on stderr with the time left and the loss; ten lines of the log where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (enabled and console.is_terminal):

        def tell(step: int, loss: float) -> None:
            if enabled and (step % max(1, total // 10) == 0 or step == total):
                logger.info("step %d of %d: loss %.3g", step, total, loss)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"), console=console) as bar:
        task = bar.add_task("training", completed=done, total=total, loss="")
        yield lambda step, loss: bar.update(task, completed=step, loss=f"loss {loss:.3g}")
