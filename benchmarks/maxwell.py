"""The solvers of Maxwell's equations in space: time of a step on one thread, beside what it cannot go below and peers.

    python benchmarks/maxwell.py [--threads 1] [--repeats 20] [--out maxwell.csv]

Floors, in the same run: for `maxwell3d` the Fourier transforms of six components there and back, which a step from
frames to frames needs (one from state to state needs none); for `maxwell3d_yee` the time in which memory is copied that
a step must read and write at least once (18 arrays of the grid's size, 21 with a permittivity for each edge). Peers of
the Yee scheme: the same step in plain NumPy, checked to give the same numbers, and the package fdtd where it is
installed. Times are minima over the repeats, in ms for each step of one trajectory in float64.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import machine, write_results

from cliffsteer.solvers import create


@dataclass
class Result:
    """One number: milliseconds, and how many times the floor (of its solver) that is."""

    resolution: int
    what: str
    milliseconds: float
    floors: float


def best(function: Callable[[], object], repeats: int) -> float:
    """Shortest time of a call, in ms."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def spectral(n: int, repeats: int) -> list[Result]:
    """`maxwell3d`: a step between states, showing one, a step between frames."""
    solver = create("maxwell3d", resolution=n)
    state = solver.initial([0])
    frames = solver.observe(state)
    axes, x = (-3, -2, -1), frames[:, 0, 1:7].contiguous()
    floor = best(lambda: torch.fft.irfftn(torch.fft.rfftn(x, dim=axes), s=(n, n, n), dim=axes), repeats)
    found = {
        "maxwell3d: floor, Fourier transforms": floor,
        "maxwell3d: state to state": best(lambda: solver.advance(state), repeats),
        "maxwell3d: observe": best(lambda: solver.observe(state), repeats),
        "maxwell3d: frames to frames": best(lambda: solver.step(frames), repeats),
    }
    return [Result(n, what, value, value / floor) for what, value in found.items()]


def yee(n: int, repeats: int) -> list[Result]:
    """`maxwell3d_yee`: a step between states, in vacuum, with bodies, between conductors; peers and floors."""
    options = {"resolution": n, "dt": 0.5 / n}
    solvers = {
        "vacuum": create("maxwell3d_yee", **options),
        "vacuum, 10 substeps": create("maxwell3d_yee", resolution=n, dt=5 / n, substeps=10),
        "conductors": create("maxwell3d_yee", **options, boundary="conductor"),
        "bodies": create("maxwell3d_yee", **options, inclusions={"balls": 2}),
    }
    states = {name: solver.initial([0]) for name, solver in solvers.items()}
    arrays = [torch.randn(n, n, n, dtype=torch.float64) for _ in range(12)]
    copy = best(lambda: [a.copy_(b) for a, b in zip(arrays[:6], arrays[6:], strict=True)], repeats) / 12
    found = {"maxwell3d_yee: floor, 18 arrays through memory": 18 * copy}
    for name, solver in solvers.items():
        value = best(lambda s=solver, x=states[name]: s.advance(x), repeats) / solver.substeps
        found[f"maxwell3d_yee: {name}"] = value
    solver, state = solvers["vacuum"], states["vacuum"]
    frames = solver.observe(state)
    found["maxwell3d_yee: observe"] = best(lambda: solver.observe(state), repeats)
    found["maxwell3d_yee: frames to frames"] = best(lambda: solver.step(frames), repeats)
    found["NumPy"] = best(numpy_steps(solver, state), repeats)
    if importlib.util.find_spec("fdtd"):
        found["fdtd"] = best(fdtd_steps(n), repeats)
    return [Result(n, what, value, value / (18 * copy)) for what, value in found.items()]


def numpy_steps(solver, state) -> Callable[[], None]:
    """A function that advances E and B of a periodic grid in vacuum by one step, as one writes it down."""
    e1, e2, e3 = (x[0].numpy().copy() for x in solver.edges(state))
    b12, b13, b23 = (x[0].numpy().copy() for x in solver.faces(state))
    c = [solver.dt / h for h in solver.grid.spacing]

    def up(x, axis):
        return c[axis] * (np.roll(x, -1, axis) - x)

    def down(x, axis):
        return c[axis] * (x - np.roll(x, 1, axis))

    def step():
        nonlocal e1, e2, e3, b12, b13, b23
        e1 += down(b12, 1) + down(b13, 2)
        e2 += down(b23, 2) - down(b12, 0)
        e3 += -down(b13, 0) - down(b23, 1)
        b12 -= up(e2, 0) - up(e1, 1)
        b13 -= up(e3, 0) - up(e1, 2)
        b23 -= up(e3, 1) - up(e2, 2)

    step()
    after = solver.advance(state)
    ours = [x[0].numpy() for x in (*solver.edges(after), *solver.faces(after))]
    gap = max(float(np.abs(a - b).max()) for a, b in zip(ours, (e1, e2, e3, b12, b13, b23), strict=True))
    if not gap < 1e-12:
        raise SystemExit(f"the NumPy loop and maxwell3d_yee differ by {gap:.1e}")
    return step


def fdtd_steps(n: int) -> Callable[[], None]:
    """A function that advances a grid of the package fdtd, periodic, NumPy in float64, by one step."""
    import fdtd

    fdtd.set_backend("numpy")
    grid = fdtd.Grid((n, n, n), grid_spacing=1 / n)
    for axis, name in enumerate(("sides_x", "sides_y", "sides_z")):
        place: list[slice | int] = [slice(None)] * 3
        place[axis] = 0
        grid[tuple(place)] = fdtd.PeriodicBoundary(name=name)
    return grid.step


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--out", type=Path, default=Path("maxwell.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = machine(arguments.threads)
    print(", ".join(f"{key} {value}" for key, value in setting.items() if value))
    results = []
    for n in arguments.resolutions:
        for result in (*spectral(n, arguments.repeats), *yee(n, arguments.repeats)):
            digits = max(0, 2 - math.floor(math.log10(result.milliseconds)))
            print(f"{n}³  {result.what:<48} {result.milliseconds:8.{digits}f} ms  {result.floors:6.2f} floors")
            results.append(result)
    write_results(arguments.out, results, setting)


if __name__ == "__main__":
    main()
