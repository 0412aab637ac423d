"""The keys of the verb that calls the others."""

from __future__ import annotations

from dataclasses import dataclass, field


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
