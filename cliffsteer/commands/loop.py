"""A PhiFlow script with a surrogate in place of its step function, and PhiFlow and the surrogate in turns.

The script is the classic smoke one: fields (velocity, density), a function ``step(v, s)``, a loop. It starts from
stored frames, so its errors can be measured against the frames that follow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cliffsteer import solvers
from cliffsteer.baselines import Persistence
from cliffsteer.coupling import Alternate, Repeated
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.interop.phiflow import PhiFlowStep
from cliffsteer.metrics import FieldErrors
from cliffsteer.solvers.smoke_phiflow import SmokePhiFlow, phiflow
from cliffsteer.stepper import rollout
from cliffsteer.surrogate import Surrogate

Fields = tuple[Any, Any]
PLAIN, REPLACED = "PhiFlow script", "PhiFlow script, surrogate for its step"
NATIVE = "native solver"
"""Labels of the script as it is, of that with the surrogate in it, and of the native solver."""


def run_loops(
    surrogate: Surrogate,
    trajectories: TrajectoryDataset,
    steps: int,
    solver_steps: int,
    surrogate_steps: int,
    count: int,
) -> dict[str, Any]:
    """Run the loops on the first trajectories of a split.

    Args:
        surrogate: the trained network.
        trajectories: held-out trajectories of "smoke" or "smoke_phiflow".
        steps: frames that each loop produces after the surrogate's history.
        solver_steps: frames of PhiFlow in a cycle of the alternating loop.
        surrogate_steps: frames of the surrogate in it.
        count: how many trajectories are run, as one batch.

    Returns:
        JSON-ready: "curves" (label -> mean NRMSE over fields after each step), "seconds" (label -> time of a step),
        "steps", "trajectories", "dt".

    Raises:
        ValueError: a dataset of another solver, or trajectories that are too short.
    """
    recipe, history = trajectories.manifest.recipe, surrogate.history
    if recipe.solver not in ("smoke", "smoke_phiflow"):
        raise ValueError(f"`trajectories` were made by {recipe.solver!r}: the PhiFlow script is that of 'smoke'.")
    solver = solvers.create("smoke_phiflow", **recipe.options)
    count = min(count, trajectories.n_trajectories)
    frames = torch.stack([trajectories.read(i, 0, history + steps) for i in range(count)])
    before, truth = frames[:, :history], frames[:, history:]
    parameters = surrogate.spec.unpack_parameters(trajectories.parameters[:count])
    curves, seconds = {}, {}

    def measure(label: str, frames: Tensor) -> None:
        measured = FieldErrors(surrogate.spec, steps)
        measured.update(frames[:, -steps:], truth)
        curves[label] = measured.compute()["overall"]["nrmse"]

    with torch.no_grad():
        for label, network in ((PLAIN, None), (REPLACED, surrogate)):
            run = list(_script(solver, recipe.every, network, before[:, :1], parameters, history - 1 + steps))
            measure(label, torch.cat([frame for frame, _ in run], 1))
            seconds[label] = statistics.median(time for _, time in run[-steps:])
        seconds[NATIVE] = _native(recipe.options, recipe.every, before[:, :1], parameters)
        alternating = Alternate(Repeated(solver, recipe.every), surrogate, solver_steps, surrogate_steps)
        began = time.perf_counter()
        frames = rollout(alternating, before, steps, parameters)
        label = f"{solver_steps} of PhiFlow, {surrogate_steps} of the surrogate, in turns"
        seconds[label] = (time.perf_counter() - began) / steps
        measure(label, frames)
        measure("persistence", rollout(Persistence.of(surrogate), before, steps))
    return {"curves": curves, "seconds": seconds, "steps": steps, "trajectories": count, "dt": trajectories.dt}


def _script(
    solver: SmokePhiFlow,
    every: int,
    network: Surrogate | None,
    first: Tensor,
    parameters: dict[str, Tensor],
    steps: int,
) -> Iterator[tuple[Tensor, float]]:
    """The script, started from a frame: after each step the frame (batch, 1, blade, *grid) and the seconds it took."""
    with phiflow() as phi:
        state = solver.restore(first, parameters)
        step = _smoke_step(phi, solver, state.parameters, every)
        if network is not None:
            step = PhiFlowStep(network, warm_up=step, **parameters)
        v, s = _to_fields(phi, solver, state)
        for _ in range(steps):
            began = time.perf_counter()
            v, s = step(v, s)
            seconds = time.perf_counter() - began
            yield _to_frame(solver, state, v, s).to(first.dtype), seconds


def _native(options: dict[str, Any], every: int, first: Tensor, parameters: dict[str, Tensor]) -> float:
    """Seconds that the native solver takes from one frame to the next."""
    solver = solvers.create("smoke", **{key: value for key, value in options.items() if key != "tolerance"})
    state, times = solver.restore(first, parameters), []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(every):
            state = solver.advance(state)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _smoke_step(phi: Any, solver: SmokePhiFlow, parameters: dict[str, Tensor], every: int) -> Callable[..., Fields]:
    """The step function that a PhiFlow user would write."""
    batch = phi.math.batch("batch")
    buoyancy = phi.math.wrap(parameters["buoyancy"], batch, phi.math.channel(vector=",".join(_axes(solver))))
    viscosity = phi.math.wrap(parameters["viscosity"][:, 0], batch)
    solve = phi.math.Solve("CG", solver.tolerance, solver.tolerance, max_iterations=10_000, rank_deficiency=0)

    def step(v: Any, s: Any) -> Fields:
        for _ in range(every):
            s = phi.advect.semi_lagrangian(s, v, solver.dt)
            v = phi.advect.semi_lagrangian(v, v, solver.dt) + phi.field.resample(s * buoyancy, v) * solver.dt
            v = phi.diffuse.explicit(v, viscosity, solver.dt)
            v, _ = phi.fluid.make_incompressible(v, solve=solve)
        return v, s

    return step


def _axes(solver: SmokePhiFlow) -> tuple[str, ...]:
    return ("x", "y", "z")[: solver.grid.dim]


def _to_fields(phi: Any, solver: SmokePhiFlow, state: Any) -> Fields:
    """Velocity and density of a state as PhiFlow fields."""
    axes = _axes(solver)
    shape = (phi.math.batch("batch"), phi.math.spatial(",".join(axes)))
    bounds = phi.geom.Box(**dict(zip(axes, solver.grid.extent, strict=True)))
    faces = {axis: phi.math.wrap(f, *shape) for axis, f in zip(axes, solver.faces(state), strict=True)}
    resolution = dict(zip(axes, solver.grid.shape, strict=True))
    velocity = phi.field.StaggeredGrid(phi.math.stack(faces, phi.math.dual("vector")), 0, bounds, **resolution)
    density = phi.math.wrap(state.values["density"], *shape)
    return velocity, phi.field.CenteredGrid(density, phi.math.extrapolation.BOUNDARY, bounds)


def _to_frame(solver: SmokePhiFlow, state: Any, velocity: Any, density: Any) -> Tensor:
    """PhiFlow fields as a frame (batch, 1, blade, *grid)."""
    order = ",".join(("batch", *_axes(solver)))
    faces = [velocity.values[{"~vector": axis}].native(order) for axis in _axes(solver)]
    return solver.observe(solver.with_values(state, density.values.native(order), faces))
