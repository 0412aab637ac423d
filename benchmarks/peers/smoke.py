"""A step of smoke: beside PhiFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cliffsteer.solvers import State, create
from cliffsteer.solvers.smoke_phiflow import phiflow
from peers.problem import Problem, Rung, relative


def smoke(tiny: bool, have: dict[str, bool]) -> Problem:
    """One step of a developed flow, the same operations on the same grid; the error is that of the pressure solve."""
    n = 8 if tiny else 64
    native, reference = (create(name, resolution=n, dt=1.0) for name in ("smoke", "smoke_phiflow"))
    start = native.initial([0])
    for _ in range(6):
        start = native.advance(start)
    exact = native.advance(start)
    grid = f"{n}×{n}"

    def error(state: State) -> float:
        pairs = zip(native.faces(state), native.faces(exact), strict=True)
        return max(relative(a, b) for a, b in (*pairs, (state.values["density"], exact.values["density"])))

    def rungs() -> Iterator[Rung]:
        yield Rung("smoke", grid, 1, lambda: native.advance(start), error)
        for tolerance in (1e-10, 1e-5):
            solver = create("smoke_phiflow", resolution=n, dt=1.0, tolerance=tolerance)
            yield Rung(
                f"PhiFlow, eager, {tolerance:g}", grid, 1, lambda solver=solver: solver.advance(start), error
            )  # fmt: skip
            yield Rung(f"PhiFlow, compiled, {tolerance:g}", grid, 1, _compiled(reference, start, tolerance), error)

    return Problem("smoke", 1e-4, rungs())


def _compiled(solver: Any, start: State, tolerance: float) -> Callable[[], State]:
    """PhiFlow's step of ``smoke_phiflow``, compiled by PhiFlow."""
    with phiflow() as phi:
        math = phi.math
        fields = solver._fields(phi, start)
        axes = fields[0].shape.spatial.names
        buoyancy = math.wrap(start.parameters["buoyancy"][0].tolist(), math.channel(vector=",".join(axes)))
        viscosity = float(start.parameters["viscosity"][0])

        def step(smoke: Any, velocity: Any) -> tuple[Any, Any]:
            carried = phi.advect.semi_lagrangian(smoke, velocity, solver.dt)
            lift = phi.field.resample(carried * buoyancy, velocity)
            moved = phi.advect.semi_lagrangian(velocity, velocity, solver.dt) + lift * solver.dt
            diffused = phi.diffuse.explicit(moved, viscosity, solver.dt)
            solve = math.Solve("CG", tolerance, tolerance, max_iterations=10_000, rank_deficiency=0)
            return carried, phi.fluid.make_incompressible(diffused, (), solve)[0]

        compiled = math.jit_compile(step)

    def run() -> State:
        with phiflow():
            density, velocity = compiled(*fields)
        order = ",".join(("batch", *axes))
        faces = [velocity.values[{"~vector": axis}].native(order) for axis in axes]
        return solver.with_values(start, density.values.native(order), faces)

    return run
