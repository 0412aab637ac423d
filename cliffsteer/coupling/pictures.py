"""Pictures of couplings: where guards tripped, and error against time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cliffsteer.coupling.guarded import Guarded
from cliffsteer.plotting import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def guard_figure(guarded: Guarded) -> Figure:
    """When each guard tripped, a row for each: a mark at the step, for every sample of the batch.

    Args:
        guarded: after a rollout.
    """
    from matplotlib.figure import Figure

    names = [guard.name for guard in guarded.guards]
    figure = Figure(figsize=(7, 1.2 + 0.3 * len(names)), layout="constrained")
    axis = figure.subplots()
    for row, name in enumerate(names):
        steps = [event.step for event in guarded.events if event.guard == name]
        axis.plot(steps, [row] * len(steps), "x", color=COLOURS[row % len(COLOURS)])
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(left=-0.5)
    axis.set_xlabel("step")
    axis.set_title(
        f"{guarded.counts['surrogate']} frames of the surrogate, {guarded.counts['rejected']} rejected,"
        f" {guarded.counts['handed back']} handed back",
        fontsize=9,
    )
    axis.grid(axis="x", alpha=0.3)
    return figure
