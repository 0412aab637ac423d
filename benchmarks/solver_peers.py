"""The problems of benchmarks/solvers.py: each solved by a solver of this package and by others, to a measured error."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliffsteer.solvers import Solver, State, create
from cliffsteer.solvers.smoke_phiflow import phiflow


@dataclass
class Rung:
    """A solution of a problem with one number of steps, on one grid.

    Args:
        runner: who solves it.
        grid: its size, in words.
        steps: how many.
        solve: from initial data that are ready to the solution.
        error: of such a solution, relative to the reference.
        batch: trajectories that are solved together.
    """

    runner: str
    grid: str
    steps: int
    solve: Callable[[], Any]
    error: Callable[[Any], float]
    batch: int = 1


@dataclass
class Problem:
    """What is to be solved to which error, by rungs of ours (which come first) and of others.

    Args:
        name: in words.
        target: relative error to compare the costs at.
        rungs: of all runners, made when they are asked for.
        missing: packages that are not installed.
    """

    name: str
    target: float
    rungs: Iterator[Rung]
    missing: tuple[str, ...] = ()


def problems(only: str, tiny: bool) -> Iterator[Problem]:
    """The problems whose name contains ``only``; tiny ones to see that all runs."""
    for name, (make, peers) in _PROBLEMS.items():
        if only in name:
            problem = make(tiny, {peer: importlib.util.find_spec(peer) is not None for peer in peers})
            problem.missing = tuple(peer for peer in peers if not importlib.util.find_spec(peer))
            yield problem


def relative(found: Any, exact: Any) -> float:
    """Relative error in the root mean square."""
    a, b = (torch.as_tensor(np.array(x) if not isinstance(x, Tensor) else x) for x in (found, exact))
    return float((a - b).norm() / b.norm())


# ------------------------------------------------------------------------------------------------------- turbulence


def turbulence(tiny: bool, have: dict[str, bool], batch: int = 4) -> Problem:
    """Decaying turbulence in 2D for 1 s; ours carries a passive scalar besides, the others vorticity alone."""
    n, time, viscosity = (32, 0.5, 0.02) if tiny else (128, 1.0, 0.002)
    ladder = (12, 16) if tiny else (28, 40, 56, 80, 112)
    options = {"resolution": n, "viscosity": viscosity, "diffusivity": viscosity, "scale": 2.0, "dt": time}
    solver = create("turbulence", **options, substeps=4 * ladder[-1])
    start = solver.initial(range(batch))
    before, exact = (_vorticity(solver, state) for state in (start, solver.advance(start)))

    def rungs() -> Iterator[Rung]:
        grid = f"{n}×{n}"
        for steps in ladder:
            ours = create("turbulence", **options, substeps=steps)
            yield Rung(
                "turbulence (ETDRK4)", grid, steps, lambda s=ours: s.advance(start),
                lambda state: relative(_vorticity(solver, state), exact), batch,
            )  # fmt: skip
        for peer, make in (("exponax", _exponax_flow), ("torch_cfd", _torch_cfd_flow)):
            if have[peer]:
                for runner, steps, solve in make(n, time, viscosity, before, ladder):
                    yield Rung(runner, grid, steps, solve, lambda w: relative(w, exact), batch)

    return Problem("turbulence", 1e-5, rungs())


def _vorticity(solver: Solver, state: State) -> Tensor:
    c, ik = solver.spectral.forward(state.values["velocity"]), solver.spectral.derivatives()
    return solver.spectral.inverse(ik[0] * c[:, 1] - ik[1] * c[:, 0])


def _exponax_flow(
    n: int, time: float, viscosity: float, start: Tensor, ladder: Sequence[int]
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Exponax's steppers of the vorticity, whose sign is the other one there."""
    exponax, jax = _exponax()
    w = jax.numpy.asarray(-start[:, None].numpy())
    for order in (2, 4):
        for steps in ladder if order == 4 else [4 * steps for steps in ladder]:
            stepper = exponax.stepper.NavierStokesVorticity(
                2, 2 * math.pi, n, time / steps, diffusivity=viscosity, order=order
            )
            run = jax.jit(jax.vmap(exponax.repeat(stepper, steps)))
            yield f"exponax (ETDRK{order})", steps, lambda run=run: -np.asarray(run(w).block_until_ready())[:, 0]


def _torch_cfd_flow(
    n: int, time: float, viscosity: float, start: Tensor, ladder: Sequence[int]
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """torch-cfd's pseudo-spectral vorticity, with its two best steppers."""
    from torch_cfd import grids, spectral

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # its grids and filters have the default type
    try:
        grid = grids.Grid((n, n), domain=((0, 2 * math.pi),) * 2)
        steppers = {
            "torch-cfd (RK4 Crank-Nicolson)": (spectral.RK4CrankNicolsonStepper(), 1),
            "torch-cfd (RK2 Crank-Nicolson)": (spectral.IMEXStepper(order=2), 4),
        }
        equations = {
            runner: spectral.NavierStokes2DSpectral(viscosity=viscosity, grid=grid, smooth=True, step_fn=stepper)
            for runner, (stepper, _) in steppers.items()
        }
    finally:
        torch.set_default_dtype(default)
    w = torch.fft.rfft2(start)
    for runner, (_, factor) in steppers.items():
        for steps in (factor * steps for steps in ladder):

            def solve(equation: Any = equations[runner], steps: int = steps) -> Tensor:
                with torch.no_grad():
                    return torch.fft.irfft2(equation(w, time / steps, steps)[0])

            yield runner, steps, solve


# ------------------------------------------------------------------------------------------------------------- wave


def wave(tiny: bool, have: dict[str, bool], batch: int = 4) -> Problem:
    """The wave equation in 2D over 10 steps; both solvers are exact."""
    n, steps = (16, 2) if tiny else (128, 10)
    solver = create("wave", resolution=n, dt=0.05)
    start = solver.initial(range(batch))
    exact = create("wave", resolution=n, dt=0.05 * steps).advance(start).values["phi"]

    def ours() -> Tensor:
        state = start
        for _ in range(steps):
            state = solver.advance(state)
        return state.values["phi"]

    def rungs() -> Iterator[Rung]:
        yield Rung("wave", f"{n}×{n}", steps, ours, lambda phi: relative(phi, exact), batch)
        if have["exponax"]:
            exponax, jax = _exponax()
            stepper = exponax.stepper.Wave(2, 1.0, n, 0.05, speed_of_sound=1.0)
            run = jax.jit(jax.vmap(exponax.repeat(stepper, steps)))
            x = jax.numpy.asarray(torch.stack([start.values["phi"], start.values["pi"]], 1).numpy())

            def solve() -> np.ndarray:
                return np.asarray(run(x).block_until_ready())[:, 0]

            yield Rung("exponax (Wave)", f"{n}×{n}", steps, solve, lambda phi: relative(phi, exact), batch)

    return Problem("wave", 1e-10, rungs())


def _exponax() -> tuple[Any, Any]:
    import jax

    jax.config.update("jax_enable_x64", True)
    import exponax

    return exponax, jax


# ------------------------------------------------------------------------------------------------------------ smoke


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


# ---------------------------------------------------------------------------------------------------------- maxwell


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


# ---------------------------------------------------------------------------------------------------------- charges


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


_PROBLEMS: dict[str, tuple[Callable[..., Problem], tuple[str, ...]]] = {
    "turbulence": (turbulence, ("exponax", "torch_cfd")),
    "wave": (wave, ("exponax",)),
    "smoke": (smoke, ()),
    "maxwell": (maxwell, ("fdtd",)),
    "charges": (charges, ("pycharge",)),
}
