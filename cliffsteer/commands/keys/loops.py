"""The keys of the verbs that put a trained network into the loop of a solver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cliffsteer.training.config import MISSING, ModelConfig, OptimizerConfig, ScheduleConfig


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
        extend: go on with the dataset's solver where the trajectory ends, so that long rollouts are compared with it.
        coupling: "replace" (the surrogate alone), "alternate" (the dataset's solver and the surrogate in turns),
            "guarded" (the surrogate, and the solver where a guard of `cliffsteer calibrate` trips), "correct" (a coarse
            solver and a correction of `cliffsteer correct`, on their grid), "coarse_to_fine" (the surrogate, finished
            by a finer solver, on its grid) or "predictor" (PhiFlow, its pressure solve started by the surrogate).
        correction: folder of the correction, in "correct"; not needed where the run is one.
        fine: cells a side of the solver in "coarse_to_fine", more than the run's; twice as many by default.
        solver_steps: frames of the solver in a cycle of "alternate" and "coarse_to_fine".
        surrogate_steps: frames of the surrogate in it.
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
    extend: bool = False
    coupling: str = "replace"
    correction: str | None = None
    fine: int | None = None
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
        rate: wanted share of good steps that trip a guard; it takes as many steps as there are guards, over the rate.
        steps: steps of the surrogate from each window that are scored; guards of long rollouts need several.
        stride: frames between two windows.
        guards: kinds of guards: finite, courant, divergence, curl, mean, negative, energy, novelty, residual; null for
            those that suit the data, but not residual, which costs two short steps of the solver. Finite is always on.
        add: further kinds, beside those of ``guards``: [residual].
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
    add: list[str] = field(default_factory=list)
    ensemble: list[str] = field(default_factory=list)
    batch_size: int = 16
    device: str = "auto"


@dataclass
class Correct:
    """``cliffsteer correct``: a correction of a coarse solver, trained on a dataset of a fine one.

    Args:
        root: folder of the dataset, made by the solver at a higher resolution.
        resolution: cells a side of the coarse solver.
        options: options of the coarse solver that differ from the dataset's, as in {substeps: 2}.
        trajectories: training trajectories, the first of them; 0 for all.
        model: the network.
        optimizer: how its weights are updated.
        schedule: how the learning rate moves.
        history: frames the network reads, the coarse solver's own one included.
        unroll: steps of solver and correction in a window, through which the gradient goes.
        steps: optimiser steps.
        batch_size: windows of one step.
        gradient_clip: largest norm of the gradient; 0 leaves it.
        save_memory: keep only the frames between steps and compute the rest again for the gradient.
        checkpoint_every: steps between writes of `checkpoints/last.ckpt`.
        log_every: steps between logged losses.
        rollout_steps: frames of the rollouts on the valid split that the result is measured by.
        seed: of initial weights and of the order of the windows.
        device: "auto" (a CUDA device when there is one), "cpu" or "cuda".
        progress: show a progress bar.
        name: name of the run.
        out: its folder.
        resume: go on from the last checkpoint in the folder; false refuses a folder that holds a run.
    """

    root: str = MISSING
    resolution: int = MISSING
    options: dict[str, Any] = field(default_factory=dict)
    trajectories: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    history: int = 1
    unroll: int = 4
    steps: int = 1000
    batch_size: int = 8
    gradient_clip: float = 1.0
    save_memory: bool = False
    checkpoint_every: int = 50
    log_every: int = 10
    rollout_steps: int = 10
    seed: int = 0
    device: str = "auto"
    progress: bool = True
    name: str = MISSING
    out: str = MISSING
    resume: bool = True


@dataclass
class Tradeoff:
    """``cliffsteer tradeoff``.

    Args:
        run: folder of a run.
        root: folder of the dataset; that of the training by default.
        split: split whose seeds are run.
        couplings: replace, alternate, guarded, correct, coarse_to_fine, predictor.
        resolutions: cells a side of the solvers; by default half of the run's and as many, and twice those of a
            correction.
        reference: cells a side of the solver that all are compared with; by default twice the finest of solvers, run
            and dataset.
        fine: cells a side of the solver in coarse_to_fine, more than the run's; twice as many by default.
        correction: folder of a correction of `cliffsteer correct`, for "correct"; not needed where the run is one.
        steps: frames that are predicted.
        trajectories: run as one batch.
        repeats: rounds in which everything is timed.
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
