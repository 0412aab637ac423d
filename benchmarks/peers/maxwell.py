"""Plane waves in vacuum: PSATD and Yee's scheme, beside the package fdtd."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliffsteer.solvers import create
from peers.problem import Problem, Rung, relative

_WAVES = ((1, 2, 2), (0, 1, 3), (2, -1, 1), (3, 0, -1))


class PlaneWaves:
    """Twelve plane waves that fit into a box of 1 m, no shorter than a third of it, as fields E and B in vacuum."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.k = 2 * math.pi * torch.tensor(_WAVES, dtype=torch.float64).repeat(3, 1)
        self.omega = self.k.norm(dim=1, keepdim=True)
        noise = torch.randn(len(self.k), 3, dtype=torch.float64, generator=generator)
        self.electric = torch.linalg.cross(self.k, noise)
        self.magnetic = torch.linalg.cross(self.k / self.omega, self.electric)

    def sample(self, vectors: Tensor, component: int, n: int, offset: Sequence[float], time: float) -> Tensor:
        """A component at n³ points of the distance 1/n, the first at ``offset``/n."""
        axes = [(torch.arange(n, dtype=torch.float64) + o) / n for o in offset]
        x = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        phase = torch.tensordot(self.k, x, 1) - self.omega[:, :, None, None] * time
        return (vectors[:, component, None, None, None] * phase.cos()).sum(0)

    def centred(self, n: int, time: float) -> Tensor:
        """E and B at the cell centres as frames: B₁₂ = B_z, B₁₃ = −B_y, B₂₃ = B_x."""
        at = (0.5, 0.5, 0.5)
        e = [self.sample(self.electric, i, n, at, time) for i in range(3)]
        bx, by, bz = (self.sample(self.magnetic, i, n, at, time) for i in range(3))
        zero = torch.zeros_like(bx)
        return torch.stack([zero, *e, bz, -by, bx, zero])[None, None]

    def on_edges(self, n: int, time: float) -> list[Tensor]:
        """E in Yee's places."""
        return [self.sample(self.electric, i, n, [0.5 * (i == j) for j in range(3)], time) for i in range(3)]

    def on_faces(self, n: int, time: float) -> list[Tensor]:
        """B_x, B_y and B_z in Yee's places."""
        return [self.sample(self.magnetic, i, n, [0.5 * (i != j) for j in range(3)], time) for i in range(3)]


def maxwell(tiny: bool, have: dict[str, bool]) -> Problem:
    """Plane waves in vacuum that cross the box once, known exactly; PSATD in one step, Yee's scheme in many."""
    waves = PlaneWaves()

    def rungs() -> Iterator[Rung]:
        for n in (8,) if tiny else (16, 32, 64):
            solver = create("maxwell3d", resolution=n, dt=1.0)
            start = solver.restore(waves.centred(n, 0.0))
            yield Rung(
                "maxwell3d (PSATD)",
                f"{n}³",
                1,
                lambda s=solver, x=start: s.observe(s.advance(x)),
                lambda frames, n=n: relative(frames, waves.centred(n, 1.0)),
            )
        for n in (8,) if tiny else (16, 32, 48, 64):
            exact = torch.stack(waves.on_edges(n, 1.0))
            steps = math.ceil(n / 0.55)  # below the limit of stability, 1/√3
            for runner, make in {"maxwell3d_yee": _yee, "fdtd": _fdtd}.items():
                if have.get(runner, True):
                    solve = make(waves, n, steps)
                    yield Rung(runner, f"{n}³", steps, solve, lambda e, exact=exact: relative(e, exact))

    return Problem("maxwell", 0.1, rungs())


def _yee(waves: PlaneWaves, n: int, steps: int) -> Callable[[], Tensor]:
    solver = create("maxwell3d_yee", resolution=n, dt=1.0, substeps=steps)
    bx, by, bz = waves.on_faces(n, 0.5 / steps)
    fields = [[x[None] for x in part] for part in (waves.on_edges(n, 0.0), (bz, -by, bx))]
    start = solver.with_fields(solver.initial([0]), *fields)
    return lambda: torch.cat(solver.edges(solver.advance(start)))


def _fdtd(waves: PlaneWaves, n: int, steps: int) -> Callable[[], Any]:
    """The package fdtd, on NumPy in float64; its periodic grid has the first node once more at the end."""
    import fdtd

    fdtd.set_backend("numpy")
    grid = fdtd.Grid((n + 1,) * 3, grid_spacing=1 / n, courant_number=n / steps)
    for axis, name in enumerate(("sides_x", "sides_y", "sides_z")):
        place: list[slice | int] = [slice(None)] * 3
        place[axis] = 0
        grid[tuple(place)] = fdtd.PeriodicBoundary(name=name)
    parts = (waves.on_edges(n, 0.0), waves.on_faces(n, 0.5 / steps))
    start = [np.pad(torch.stack(part, -1).numpy(), [(0, 1)] * 3 + [(0, 0)], mode="wrap") for part in parts]

    def solve() -> np.ndarray:
        grid.E, grid.H = (field.copy() for field in start)
        for _ in range(steps):
            grid.step()
        return np.moveaxis(grid.E[:n, :n, :n], -1, 0)

    return solve
