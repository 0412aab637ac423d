"""What simulation costs: a step of every solver, and whole problems beside peers at the same error, in one run.

    python benchmarks/solvers.py [--threads 1] [--repeats 5] [--device cpu] [--only turbulence] [--out solvers.csv]

**Cost**: milliseconds per step and trajectory, from one state to the next and its frame, in float64, at given grids and
batch sizes.

**Peers**: each problem of ``peers`` is solved by every package at hand on a ladder of steps or grids, from the
same initial data to the same time, and held against one reference. The cost at the same error is that of the cheapest
rung whose error is at most the problem's target; ``ratio`` is that cost over ours. Missing packages are named as such.
They are not needed otherwise, so they go into an environment of their own beside this project:

    python -m venv peers
    peers/bin/pip install -e . pycharge==1.1.0 exponax torch-cfd fdtd
    peers/bin/python benchmarks/solvers.py

All run on the same cores, JAX in float64 and compiled before it is timed. Times are minima over the repeats.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import machine, write_results
from peers import Problem, problems

from cliffsteer.solvers import create

# Options, and sides of the grid and batch sizes to measure at.
SPACE = {"dim": 3}
COST = (
    ("smoke", {"viscosity": 0.002}, (32, 64, 128), (1, 8)),
    ("smoke", SPACE, (32,), (1, 4)),
    ("smoke_phiflow", {}, (32, 64), (1, 8)),
    ("smoke_scene", {"obstacle_radius": 4.0}, (32, 64), (1, 8)),
    ("smoke_scene", {"boundary": ("no_slip", ("no_slip", "open"))}, (32, 64), (1, 8)),
    ("turbulence", {"substeps": 1, "dt": 0.01}, (64, 128, 256), (1, 8)),
    ("turbulence", {"substeps": 1, "dt": 0.01, **SPACE}, (32, 64), (1, 4)),
    ("shallow_water", {"substeps": 1, "dt": 600.0}, (64, 128, 256), (1, 8)),
    ("klein_gordon", {}, (64, 128), (1, 8)),
    ("wave", {}, (64, 128), (1, 8)),
    ("klein_gordon_spacetime", {"block": 8, "wavelengths": (0.6, 1.2)}, (32, 64), (1, 8)),
    ("maxwell3d", {}, (32, 64), (1, 4)),
    ("maxwell3d_yee", {"dt": 1 / 128}, (32, 64), (1, 4)),
    ("maxwell2d", {"block": 8}, (32, 64), (1, 8)),
    ("maxwell_spacetime", {"block": 8}, (16, 32), (1, 2)),
    ("maxwell_charges", {"block": 8}, (32,), (1, 4)),
)


@dataclass
class Result:
    """One measurement; ``ratio`` is the cost over ours at the problem's target error, on the rung that reaches it."""

    problem: str
    runner: str
    grid: str
    batch: int
    steps: int
    step_ms: float
    """Per step and trajectory."""
    total_ms: float
    """Of the whole problem, per trajectory."""
    error: float = math.nan
    ratio: float = math.nan


def best(function: Callable[[], Any], repeats: int, device: str = "cpu") -> float:
    """Shortest time of a call, in ms; the first call, which compiles, is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[1:])


def cost(only: str, repeats: int, device: str, tiny: bool) -> Iterator[Result]:
    """Steps of the solvers whose name contains ``only``."""
    for name, options, sides, batches in COST:
        if only not in name or (device != "cpu" and "smoke_" in name):  # PhiFlow's states stay on the CPU here
            continue
        for n in (8,) if tiny else sides:
            solver = create(name, resolution=n, **options)
            for batch in batches[:1] if tiny else batches:
                state = solver.advance(solver.initial(range(batch)).to(device))
                value = best(lambda s=solver, x=state: s.observe(s.advance(x)), repeats, device) / batch
                words = " ".join(f"{key}={item}" for key, item in options.items())
                grid = "×".join(map(str, solver.grid.shape))
                yield Result(f"cost {words}".strip(), name, grid, batch, 1, value, value)


def compare(problem: Problem, repeats: int) -> Iterator[Result]:
    """All rungs of a problem, and the costs at its target error beside the first runner's."""
    results, first = [], ""
    for rung in problem.rungs:
        first = first or rung.runner
        try:
            error = rung.error(rung.solve())
        except ValueError as refusal:
            print(f"{problem.name}: {rung.runner} refuses {rung.steps} steps on {rung.grid} ({refusal})")
            continue
        total = best(rung.solve, repeats) / rung.batch
        results.append(
            Result(problem.name, rung.runner, rung.grid, rung.batch, rung.steps, total / rung.steps, total, error)
        )
    costs: dict[str, Result] = {}
    for result in results:
        good = result.error <= problem.target
        if good and (result.runner not in costs or result.total_ms < costs[result.runner].total_ms):
            costs[result.runner] = result
    ours = costs.get(first)
    for result in costs.values():
        result.ratio = result.total_ms / ours.total_ms if ours else math.nan
    yield from results


def show(result: Result) -> None:
    """Print a line."""
    error = "" if math.isnan(result.error) else f"error {result.error:7.1e}"
    ratio = "" if math.isnan(result.ratio) else f"{result.ratio:8.2f} × ours at the target"
    print(
        f"{result.problem:<44} {result.runner:<28} {result.grid:<12} batch {result.batch}"
        f" {result.step_ms:10.3f} ms/step {result.total_ms:10.2f} ms in {result.steps:>4}  {error} {ratio}",
        flush=True,
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of the cost table; peers run on the CPU")
    parser.add_argument("--only", default="", help="part of a solver's or a problem's name")
    parser.add_argument("--part", choices=("cost", "peers", "all"), default="all")
    parser.add_argument("--tiny", action="store_true", help="tiny grids: to see that all runs, not to measure")
    parser.add_argument("--out", type=Path, default=Path("solvers.csv"))
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # for all packages alike, before JAX counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    torch.set_num_threads(arguments.threads)
    setting = machine(arguments.threads)
    print(", ".join(f"{key} {value}" for key, value in setting.items() if value))
    results = []
    if arguments.part != "peers":
        for result in cost(arguments.only, arguments.repeats, arguments.device, arguments.tiny):
            show(result)
            results.append(result)
    if arguments.part != "cost":
        for problem in problems(arguments.only, arguments.tiny):
            for package in problem.missing:
                print(f"{problem.name}: {package} is not installed")
            for result in compare(problem, arguments.repeats):
                show(result)
                results.append(result)
    if not results:
        raise SystemExit(f"nothing to measure: no solver or problem is named {arguments.only!r}")
    write_results(arguments.out, results, setting)


if __name__ == "__main__":
    main()
