"""Predictions without a network, to compare with."""

from __future__ import annotations

import math

from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.functional import block_mean, repeat_cells
from cliffsteer.grid import Grid
from cliffsteer.nn import Upsample
from cliffsteer.stepper import Parameters, Stepper, check_frames


class Persistence:
    """Nothing changes: u(t + dt) = u(t), as a Stepper.

    Args:
        spec: the fields.
        grid: the grid.
        dt: time between frames, in seconds unless the system says otherwise.
    """

    history = 1

    def __init__(self, spec: FieldSpec, grid: Grid, dt: float):
        self.spec, self.grid, self.dt = spec, grid, dt

    @classmethod
    def of(cls, stepper: Stepper) -> Persistence:
        """Persistence on the fields and the grid of another stepper."""
        return cls(stepper.spec, stepper.grid, stepper.dt)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The last frame, shape (batch, 1, blade, *grid), zero on blades that the spec does not declare.

        Raises:
            ValueError: frames that do not fit the spec or the grid.
        """
        check_frames(self, frames)
        declared = self.spec.occupied.to(frames.device).view(-1, *[1] * self.grid.dim)
        return frames[:, -1:].masked_fill(~declared, 0)


class CoarseSolver:
    """A solver on a coarser grid, as a Stepper on the fine one: what the same time buys without a network.

    Frames are averaged over blocks of cells, advanced by the coarse solver, and interpolated linearly; what the
    interpolation then lacks or has too much of each block's mean is added to its cells. So averages of the output are
    the coarse solver's frames, and a rollout here is one of the coarse solver, seen on the fine grid.

    For equal cost take the finest grid on which the coarse solver needs no more time than what it is compared with;
    an explicit solver on a grid k times coarser in n dimensions costs about k⁻ⁿ⁻¹ as much.

    Args:
        solver: what defines the fine grid, e.g. the simulator of the data; it is not run.
        coarse: a stepper of the same fields on a grid coarser by one whole factor on all axes, and of the same time
            step or a whole fraction of it; it must read one frame.

    Attributes:
        factor: fine cells along each axis in a coarse one.
        substeps: steps of ``coarse`` in one of this.

    Raises:
        ValueError: steppers of different fields, grids that do not nest, or time steps that do not.

    Example:
        >>> from cliffsteer import solvers
        >>> fine = solvers.create("smoke", resolution=32)
        >>> CoarseSolver(fine, solvers.create("smoke", resolution=16)).factor
        2
    """

    history = 1

    def __init__(self, solver: Stepper, coarse: Stepper):
        if coarse.spec != solver.spec:
            raise ValueError("`coarse` has other fields than `solver`: make both by one solver's name and options.")
        self.factor = solver.grid.shape[0] // coarse.grid.shape[0]
        if self.factor < 1 or not _nested(solver.grid, coarse.grid, self.factor):
            raise ValueError(
                f"`coarse` has the grid {coarse.grid}, which is not that of `solver` ({solver.grid}) coarsened by one"
                " whole factor."
            )
        self.substeps = round(solver.dt / coarse.dt)
        if self.substeps < 1 or not math.isclose(self.substeps * coarse.dt, solver.dt, rel_tol=1e-9):
            raise ValueError(
                f"`coarse` has the time step {coarse.dt}, which is no whole fraction of that of `solver` ({solver.dt})."
            )
        if coarse.history > 1:
            raise ValueError(f"`coarse` reads {coarse.history} frames: it must read one.")
        self.coarse, self.spec, self.grid, self.dt = coarse, solver.spec, solver.grid, solver.dt
        self._finer = Upsample(self.spec.algebra, self.factor, padding=coarse.grid)

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frame, shape (batch, 1, blade, *grid).

        Raises:
            ValueError: frames or parameters that do not fit.
        """
        check_frames(self, frames)
        dim, blades = self.grid.dim, self.spec.algebra.n_blades
        mean = block_mean(frames[:, -1:], self.factor, dim)
        for _ in range(self.substeps):
            mean = self.coarse.step(mean, parameters)[:, -1:]
        fields = mean.unflatten(2, (-1, blades)).flatten(1, 2)
        finer = self._finer.to(frames.device)(fields).view(*mean.shape[:3], *self.grid.shape)
        return finer + repeat_cells(mean - block_mean(finer, self.factor, dim), self.factor, dim)


def _nested(fine: Grid, coarse: Grid, factor: int) -> bool:
    if any(length % factor for length in fine.shape):
        return False
    expected = fine.coarsened(factor)
    same = (expected.shape, expected.unit, expected.boundary) == (coarse.shape, coarse.unit, coarse.boundary)
    return same and all(map(math.isclose, expected.spacing, coarse.spacing))
