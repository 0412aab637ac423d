"""SpacetimeSolver: a solver whose frames are blocks of spacetime, for learning on R^{1,d}.

There time is a grid axis, the first. A frame is the field on a block of points in time and in space: grid (t, *x),
algebra R^{1,d} with time first, all lengths and times in one unit (c = 1). One step of the solver, ``dt``, goes on by
one block, so that one block in and the next one out is an ordinary step with history 1.

A block shows the field, not the charges that make it, and these decide what comes next. States hold both, but frames
cannot be restored to states: these solvers make data and take no part in solver loops.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import Solver
from cliffsteer.stepper import Parameters


class SpacetimeSolver(Solver):
    """Base of the solvers on blocks of spacetime: fields, grid and times of the block.

    The field is the bivector F = Σ E_i e1∧e_i + Σ cB_ij e_i∧e_j (``lienard_wiechert`` has the signs), named "faraday".

    Args:
        points: points in time of a block.
        cells: cells in space.
        spacing: size of the cells in space, in ``unit``.
        courant: c Δt between points in time, over ``spacing``.
        boundary: kind of all sides in space; those in time are open.
        unit: of lengths and times.
        field_unit: of the field.

    Attributes:
        time_unit: unit of ``dt``, the time that light takes for the unit of length.
        offsets: times of the points from the start of the block, shape (points,).
    """

    def __init__(
        self,
        points: int,
        cells: tuple[int, ...],
        spacing: float,
        courant: float,
        boundary: str,
        unit: str,
        field_unit: str,
    ):
        axes = len(cells)
        self.spec = FieldSpec((1, *[-1] * axes), [Field("faraday", 2, field_unit)])
        sides: Any = ("open", *[boundary] * axes)
        self.grid = Grid((points, *cells), (courant * spacing, *[spacing] * axes), sides, unit)
        self.dt = self.grid.extent[0]
        self.time_unit = f"{unit}/c"
        self.offsets = (torch.arange(points, dtype=torch.float64) + 0.5) * self.grid.spacing[0]

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> NoReturn:
        """Refuse: frames do not tell the charges' motion.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"`frames` of solver {self.name!r} show the field but not the charges that make it, so it cannot go on from"
            " them: start from `initial` and go on with `advance`."
        )
