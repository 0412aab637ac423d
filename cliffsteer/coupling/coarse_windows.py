"""CoarseWindows: a dataset of a fine solver, as far as a coarse one can show it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cliffsteer.coupling.transfer import transfer
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.solvers.base import Solver


class CoarseWindows(Dataset):
    """Windows of (history, future) frames of a dataset, brought to the grid of a coarse solver.

        u → S.observe(S.restore(R u))

    with R to the coarse grid (`transfer`). What the solver S does not keep of a frame, such as waves that it filters,
    is no error that a correction of its output could mend, so it is left out of the truth as well. All of it is made
    once and kept in memory, in single precision.

    Args:
        trajectories: one split of a dataset.
        solver: the coarse solver, of the same fields and domain.
        history: frames that are read.
        future: frames that follow them.

    Raises:
        ValueError: a number below 1, trajectories shorter than a window, or grids that do not fit.
    """

    def __init__(self, trajectories: TrajectoryDataset, solver: Solver, history: int, future: int):
        for name, value in (("history", history), ("future", future)):
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1.")
        self.per_trajectory = trajectories.n_frames - history - future + 1
        if self.per_trajectory < 1:
            raise ValueError(
                f"Windows of {history} + {future} frames are needed, but the trajectories have"
                f" {trajectories.n_frames}: take fewer, or generate longer trajectories."
            )
        self.history, self.future, self.parameters = history, future, trajectories.parameters
        self.frames = torch.stack([shown(trajectories, solver, i) for i in range(trajectories.n_trajectories)])

    def __len__(self) -> int:
        return len(self.frames) * self.per_trajectory

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window, float32: "history" and "future", (time, blade, *grid), and "parameters", (blade,)."""
        if not 0 <= index < len(self):
            raise IndexError(f"`index` (={index}) is out of range: there are {len(self)} windows.")
        trajectory, start = divmod(index, self.per_trajectory)
        middle = start + self.history
        frames = self.frames[trajectory]
        return {
            "history": frames[start:middle],
            "future": frames[middle : middle + self.future],
            "parameters": self.parameters[trajectory],
        }


def shown(trajectories: TrajectoryDataset, solver: Solver, trajectory: int) -> Tensor:
    """All frames of a trajectory as a coarse solver shows them, shape (time, blade, *grid), float32."""
    frames = trajectories.read(trajectory)[None].double()
    coarse = transfer(frames, trajectories.spec, trajectories.grid, solver.grid)
    parameters = solver.spec.unpack_parameters(trajectories.parameters[trajectory, None])
    return solver.observe(solver.restore_all(coarse, parameters))[:, 0].float()
