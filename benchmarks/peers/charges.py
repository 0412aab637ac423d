"""The field of point charges: beside PyCharge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cliffsteer.solvers import State, create
from peers.problem import Problem, Rung, relative


def charges(tiny: bool, have: dict[str, bool]) -> Problem:
    """E and B of the point charges of one trajectory at one instant, on as many points as a frame is averaged from."""
    options = {"resolution": 8, "oversampling": 2} if tiny else {"resolution": 32, "oversampling": 8}
    solver = create("maxwell_charges", **options, block=1, normalization="none")
    state = solver.initial([0])
    time = state.values["time"][0] + solver.offsets[0]
    exact = solver.field(state, 0, time)

    def rungs() -> Iterator[Rung]:
        grid = "×".join(map(str, exact.shape[1:]))
        yield Rung("maxwell_charges", grid, 1, lambda: solver.field(state, 0, time), lambda f: relative(f, exact))
        if have["pycharge"]:
            solve = _pycharge(solver, state, float(time))
            yield Rung("PyCharge", grid, 1, solve, lambda f: relative(f, exact))

    return Problem("charges", 1e-8, rungs())


def _pycharge(solver: Any, state: State, time: float) -> Callable[[], Any]:
    """PyCharge's field of the charges of a state, lengths in nm and times in nm/c turned into SI units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import pycharge

    nm, light = 1e-9, 299792458.0

    class Mover(pycharge.Charge):
        """A charge on o + v t + a cos ωt + b sin ωt."""

        def __init__(self, q: float, origin: Any, drift: Any, cosine: Any, sine: Any, omega: float):
            super().__init__(q)
            self.o, self.v, self.a, self.b, self.w = origin, drift, cosine, sine, omega

        def part(self, axis: int, t: Any, order: int) -> Any:
            """The component or one of its first two derivatives."""
            if axis == 2:
                return 0.0 * t
            a, b, w = self.a[axis], self.b[axis], self.w
            cos, sin = np.cos(w * t), np.sin(w * t)
            return (
                lambda: self.o[axis] + self.v[axis] * t + a * cos + b * sin,
                lambda: self.v[axis] - a * w * sin + b * w * cos,
                lambda: -(w**2) * (a * cos + b * sin),
            )[order]()

    for axis, letter in enumerate("xyz"):
        for order, what in enumerate(("pos", "vel", "acc")):
            method = lambda self, t, axis=axis, order=order: self.part(axis, t, order)  # noqa: E731
            setattr(Mover, letter + what, method)
    Mover.__abstractmethods__ = frozenset()

    row = {name: value[0].numpy() for name, value in state.values.items()}
    movers = [
        Mover(
            row["charge"][i] * 1.602176634e-19,
            row["origin"][:, i] * nm,
            row["drift"][:, i] * light,
            row["cosine"][:, i] * nm,
            row["sine"][:, i] * nm,
            row["omega"][i] / nm * light,
        )
        for i in range(len(row["charge"]))
        if row["charge"][i]
    ]
    simulation = pycharge.Simulation(movers)
    x, y = (axis[..., None].numpy() * nm for axis in solver.points)
    seconds = time * nm / light

    def solve() -> np.ndarray:
        ex, ey, _ = simulation.calculate_E(seconds, x, y, 0 * x)
        bz = simulation.calculate_B(seconds, x, y, 0 * x)[2] * light
        return np.stack([component[..., 0] for component in (ex, ey, bz)])

    return solve
