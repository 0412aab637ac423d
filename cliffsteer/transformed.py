"""Test sets seen from elsewhere: windows turned by symmetries of the lattice, plane waves seen from moving frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.nn.kernels.basis import time_axis
from cliffsteer.solvers.plane_waves import boosted, random_waves, spacetime_block, spacetime_spec
from cliffsteer.symmetry import SignedPermutation, lattice_symmetries

ROTATED = ("one", "all", "none")
"""How windows are turned: each by one symmetry, in turn; each by all; not at all."""


def turning_symmetries(algebra: CliffordAlgebra, grid: Grid) -> list[SignedPermutation]:
    """The symmetries of the grid that turn a history and what follows it into another such pair; without the identity.

    Reversals of a time axis do not: what they make of the future comes before what they make of the history.
    """
    elements = list(lattice_symmetries(algebra, grid))[1:]
    try:
        time = time_axis(algebra)
    except ValueError:
        return elements
    return [g for g in elements if g.axes[time] == time and g.signs[time] > 0]


class TurnedWindows(Dataset):
    """Windows turned by symmetries of the grid: history, parameters and future alike.

    An equivariant network has the same errors on them; what another one loses tells how much it relies on the
    directions of its training data. Window i is turned by symmetry i mod n, or by all n of them one after the other.

    Args:
        windows: a `WindowDataset`, or a part of one.
        spec: the fields.
        grid: their grid, which says what symmetries there are.
        which: "one" or "all".

    Raises:
        ValueError: an unknown choice, or a grid without symmetries.
    """

    def __init__(self, windows: Dataset, spec: FieldSpec, grid: Grid, which: str = "one"):
        if which not in ("one", "all"):
            raise ValueError(f"`which` (={which!r}) must be 'one' or 'all'.")
        self.windows, self.spec, self.which = windows, spec, which
        self.symmetries = turning_symmetries(spec.algebra, grid)
        if not self.symmetries:
            raise ValueError(f"`grid` (={grid}) has no symmetry that could turn a window.")

    def __len__(self) -> int:
        return len(self.windows) * (len(self.symmetries) if self.which == "all" else 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window, as a `WindowDataset` gives it."""
        if not 0 <= index < len(self):
            raise IndexError(f"`index` (={index}) is out of range: there are {len(self)} windows.")
        number, window = index % len(self.symmetries), index
        if self.which == "all":
            number, window = divmod(index, len(self.windows))
        g, item, algebra = self.symmetries[number], self.windows[window], self.spec.algebra
        turned = {name: g.act(algebra, item[name], axis=1) for name in ("history", "future")}
        packed = item["parameters"]
        return turned | {"parameters": g.turn(algebra, packed) if self.spec.parameters else packed}


class BoostedWaves(Dataset):
    """Windows of blocks of spacetime R^{1,q} with plane waves of a free field, all seen from a frame that moves.

    The same waves for every velocity, exact solutions of ∂ₜ²φ = ∇²φ − m²φ at all points of all blocks, on blocks that
    follow each other in the time of the moving frame. Fields are those of ``plane_waves.spacetime_spec``.

    Args:
        grid: of a block, its first axis time (c = 1).
        velocity: of the frame, in units of c, a component per axis of space.
        count: number of windows, each with waves of its own.
        history: blocks that are read.
        future: blocks that follow.
        mass: m, in 1/m.
        waves: plane waves of a window.
        wavelengths: shortest and longest, in m, in the frame at rest.
        seed: of the waves.

    Raises:
        ValueError: a number of components or a speed that does not fit, or no windows.

    Example:
        >>> grid = Grid((4, 8, 8), 0.1, "open")
        >>> rest, moving = (BoostedWaves(grid, v, 3) for v in ((0.0, 0.0), (0.3, 0.4)))
        >>> moving[0]["future"].shape
        torch.Size([1, 8, 4, 8, 8])
    """

    def __init__(
        self,
        grid: Grid,
        velocity: Sequence[float],
        count: int,
        history: int = 1,
        future: int = 1,
        mass: float = 0.0,
        waves: int = 16,
        wavelengths: tuple[float, float] = (0.5, 2.0),
        seed: int = 0,
    ):
        if len(velocity) != grid.dim - 1:
            raise ValueError(
                f"`velocity` (={tuple(velocity)}) must have {grid.dim - 1} component(s), one per axis of space."
            )
        for name, value in (("count", count), ("history", history), ("future", future), ("waves", waves)):
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1.")
        self.grid, self.velocity, self.count = grid, tuple(velocity), count
        self.history, self.future, self.mass, self.seed = history, future, mass, seed
        self.n_waves, self.wavelengths = waves, wavelengths
        self.spec = spacetime_spec(grid.dim - 1)
        if not math.hypot(*self.velocity) < 1:
            raise ValueError(f"`velocity` (={self.velocity}) must be below 1, the speed of light.")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window: "history", "future" (block, blade, t, *x) and "parameters" (0,), float32."""
        if not 0 <= index < self.count:
            raise IndexError(f"`index` (={index}) is out of range: there are {self.count} windows.")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        still = random_waves(self.grid.dim - 1, self.n_waves, generator, self.mass, self.wavelengths)
        seen = boosted(still, self.velocity)
        blocks = torch.cat(
            [
                spacetime_block([seen], self.grid, (i * self.grid.extent[0], *[0.0] * (self.grid.dim - 1)))[0]
                for i in range(self.history + self.future)
            ]
        ).float()
        return {"history": blocks[: self.history], "future": blocks[self.history :], "parameters": torch.zeros(0)}
