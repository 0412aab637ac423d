import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import State, create
from cliffsteer.solvers.smoke import Smoke
from cliffsteer.stepper import Stepper
from cliffsteer.symmetry import lattice_symmetries

DRAWN = {"buoyancy_range": (0.3, 0.7), "viscosity_range": (0.005, 0.02)}


def developed(solver, seeds=(0, 1), steps=5):
    state = solver.initial(seeds)
    for _ in range(steps):
        state = solver.advance(state)
    return state


def difference(a: State, b: State) -> float:
    return max(float((a.values[name] - b.values[name]).abs().max()) for name in a.values)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def with_flow(solver, psi, density):
    """A state with u = (∂ψ/∂y, −∂ψ/∂x) on the faces, divergence-free exactly, from ψ at the nodes."""
    n, h = solver.grid.shape[0], solver.grid.spacing[0]
    x, y = torch.meshgrid(*[torch.arange(n + 1, dtype=torch.float64) * h] * 2, indexing="ij")
    nodes = psi(x, y)
    faces = (nodes.diff(dim=1)[1:-1] / h)[None], (-nodes.diff(dim=0)[:, 1:-1] / h)[None]
    return solver.with_values(solver.initial([0]), density(*solver.grid.coordinates())[None], faces)


# ------------------------------------------------------------------------------------- exact and analytic solutions


@pytest.mark.parametrize("dim", [2, 3])
def test_smoke_in_layers_stays_at_rest(dim):
    # s b is a gradient when s depends on the height alone: pressure carries it, and nothing moves.
    # (With viscosity, friction acts on the push before pressure answers, as in PhiFlow's order: an error of O(ν Δt²).)
    solver = create("smoke", resolution=8, dim=dim, dt=0.5, viscosity=0.0)
    state = solver.initial([0])
    height = solver.grid.coordinates()[-1]
    state.values["density"] = (1 + height + height**2)[None]
    later = solver.advance(solver.advance(state))
    assert difference(later, state) < 1e-11


def test_diffusion_of_an_eigenmode():
    # sin(πx/L) · sin(π(y + h/2)/(L + h)), zero on the walls it crosses and one cell beyond the last sample along them.
    solver = create("smoke", resolution=16, viscosity=0.1)
    n, h, dt = 16, solver.grid.spacing[0], solver.dt
    i, j = torch.arange(1, n, dtype=torch.float64), torch.arange(1, n + 1, dtype=torch.float64)
    mode = torch.sin(math.pi * i / n)[:, None] * torch.sin(math.pi * j / (n + 1))
    rate = (4 * math.sin(math.pi / 2 / n) ** 2 + 4 * math.sin(math.pi / 2 / (n + 1)) ** 2) / h**2
    state = solver.initial([0])
    start = 1e-9 * mode[None], torch.zeros(1, n, n - 1, dtype=torch.float64)
    state = solver.with_values(state, torch.zeros(1, n, n, dtype=torch.float64), start)
    out = solver.faces(solver.advance(state))
    expected = solver.mac.project([(1 - 0.1 * dt * rate) * f for f in start])
    assert all(relative(a, b) < 1e-8 for a, b in zip(out, expected, strict=True))


def test_diffusion_converges_with_order_two():
    # ∂(advance)/∂ν = Δt P∇²u as the velocity tends to 0; ψ = (sin sin)⁶ keeps away from the walls.
    errors = []
    for n in (24, 48, 96):
        size = 1.0

        def psi(x, y):
            return 1e-9 * (torch.sin(math.pi * x) * torch.sin(math.pi * y)) ** 6

        low, high = (
            solver.faces(solver.advance(with_flow(solver, psi, lambda x, y: 0 * x)))
            for solver in (
                create("smoke", resolution=n, size=size, dt=1e-5, viscosity=nu, scale=1.0) for nu in (0.0, 1.0)
            )
        )
        h = size / n

        def laplacian_psi(x, y):
            sx, sy, cx, cy = (f(math.pi * v) for f in (torch.sin, torch.cos) for v in (x, y))
            second = [30 * s**4 * c**2 - 6 * s**6 for s, c in ((sx, cx), (sy, cy))]
            return 1e-9 * math.pi**2 * (second[0] * sy**6 + second[1] * sx**6)

        solver = create("smoke", resolution=n, size=size, dt=1e-5, scale=1.0)
        exact = solver.faces(with_flow(solver, laplacian_psi, lambda x, y: 0 * x))
        error = [(b - a) / 1e-5 - e for a, b, e in zip(low, high, exact, strict=True)]
        errors.append(math.sqrt(sum(float(e.square().sum()) for e in error)) * h)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.8 < order < 2.2 for order in orders), orders


def test_a_steady_vortex_converges_with_order_one():
    # ψ = sin(πx) sin(πy) solves Euler's equations; smoke that is a function of ψ does not change, without buoyancy.
    errors = {"density": [], "velocity": []}
    for n in (16, 32, 64):
        solver = create("smoke", resolution=n, size=1.0, dt=0.8 / n, viscosity=0.0, buoyancy=(0, 0), scale=1.0)

        def psi(x, y):
            return torch.sin(math.pi * x) * torch.sin(math.pi * y) / math.pi

        start = state = with_flow(solver, psi, lambda x, y: torch.exp(-4 * (1 - math.pi * psi(x, y))))
        for _ in range(n // 4):
            state = solver.advance(state)
        before, after = (solver.spec.unpack(solver.observe(s)) for s in (start, state))
        middle = slice(n // 4, -n // 4)  # beyond the reach of the no-slip walls
        for name, found in errors.items():
            found.append(relative(after[name][..., middle, middle], before[name][..., middle, middle]))
    for name, found in errors.items():
        orders = [math.log2(a / b) for a, b in itertools.pairwise(found)]
        assert all(0.7 < order < 1.4 for order in orders), (name, found)


def test_the_whole_system_converges_with_order_one():
    fields = []
    for n in (16, 32, 64, 128):
        solver = create("smoke", resolution=n, dt=12 / n, buoyancy=(0.2, 0.4))
        frames = solver.observe(developed(solver, (0,), steps=n // 4))
        fields.append(torch.nn.functional.avg_pool2d(frames[0], n // 16))
    gaps = [float((a - b).norm() / fields[-1].norm()) for a, b in itertools.pairwise(fields)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert all(0.7 < order < 1.5 for order in orders), (gaps, orders)


# -------------------------------------------------------------------------------------------------- conservation


@pytest.mark.parametrize(("dim", "n"), [(2, 32), (3, 8)])
def test_velocity_stays_free_of_divergence(dim, n):
    solver = create("smoke", resolution=n, dim=dim, dt=1.0, **DRAWN)
    state = solver.initial([0, 1])
    for _ in range(6):
        state = solver.advance(state)
        assert float(solver.mac.divergence(solver.faces(state)).abs().max()) < 1e-12
    assert max(float(f.abs().max()) for f in solver.faces(state)) > 0.3
    restored = solver.restore(torch.randn(2, 1, solver.spec.n_blades, *solver.grid.shape))
    assert float(solver.mac.divergence(solver.faces(restored)).abs().max()) < 1e-10


def test_projection_at_full_resolution():
    solver = create("smoke")
    assert solver.grid.shape == (128, 128)
    state = developed(solver, (0,), 3)
    assert float(solver.mac.divergence(solver.faces(state)).abs().max()) < 1e-10


def test_smoke_stays_within_bounds_and_is_nearly_conserved():
    # Semi-Lagrangian advection takes weighted averages, so it makes no new extremes; it conserves nothing exactly.
    solver = create("smoke", resolution=32)
    state = start = solver.initial(range(8))
    for _ in range(24):
        state = solver.advance(state)
    before, after = start.values["density"].flatten(1), state.values["density"].flatten(1)
    assert bool((after.amax(1) <= before.amax(1)).all())
    assert bool((after.amin(1) >= before.amin(1)).all())
    ratio = after.sum(1) / before.sum(1)
    assert bool((ratio > 0.6).all())
    assert bool((ratio < 1.1).all())
    assert float((ratio - 1).abs().max()) > 1e-3


# ------------------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize(("dim", "n"), [(2, 16), (3, 6)])
def test_equivariant_under_all_symmetries_of_the_grid_when_buoyancy_turns_along(dim, n):
    solver = create("smoke", resolution=n, dim=dim, **DRAWN)
    state = developed(solver, (0, 1), 3)
    frames, packed = solver.observe(state), solver.spec.pack_parameters(state.parameters, 2, torch.float64)

    def two_steps(frames, packed):
        return rollout(solver, frames, 2, solver.spec.unpack_parameters(packed))

    reference = two_steps(frames, packed)
    algebra, elements = solver.spec.algebra, list(lattice_symmetries(solver.spec.algebra, solver.grid))
    assert len(elements) == {2: 8, 3: 48}[dim]
    for g in elements:
        out = two_steps(g.act(algebra, frames), g.turn(algebra, packed))
        assert relative(out, g.act(algebra, reference)) < 1e-12
    left_behind = two_steps(elements[-1].act(algebra, frames), packed)
    assert relative(left_behind, elements[-1].act(algebra, reference)) > 1e-2


# ---------------------------------------------------------------------------------------- seeds, options, frames


def test_seeds_decide_everything_whatever_the_batch():
    solver = create("smoke", resolution=16, **DRAWN)
    together, again, alone = solver.initial([7, 3]), solver.initial([7, 3]), solver.initial([3])
    for group in ("values", "parameters"):
        for name, value in getattr(together, group).items():
            assert torch.equal(value, getattr(again, group)[name])
            assert torch.equal(value[1:], getattr(alone, group)[name])
    assert float((together.values["density"][0] - together.values["density"][1]).abs().max()) > 0.1
    for _ in range(4):
        together, again, alone = (solver.advance(s) for s in (together, again, alone))
    assert difference(together, again) == 0
    assert all(float((together.values[k][1:] - alone.values[k]).abs().max()) < 1e-12 for k in together.values)


CHANGES = {
    "resolution": 12,
    "size": 30.0,
    "dt": 1.0,
    "buoyancy": (0.1, 0.4),
    "buoyancy_range": (0.2, 0.3),
    "viscosity": 0.05,
    "viscosity_range": (0.02, 0.04),
    "scale": 5.0,
    "smoothness": 2.0,
    "dim": 3,
}


def test_every_option_changes_the_output():
    options = set(inspect.signature(Smoke).parameters)
    assert options == set(CHANGES)
    base = create("smoke", resolution=10)
    reference = base.observe(developed(base, (0,), 3))
    for option, value in CHANGES.items():
        solver = create("smoke", **{"resolution": 10, option: value})
        frames = solver.observe(developed(solver, (0,), 3))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-5, option


def test_every_parameter_changes_the_output():
    solver = create("smoke", resolution=16)
    frames = solver.observe(developed(solver))
    reference = solver.step(frames)
    assert torch.equal(solver.step(frames, {"buoyancy": (0, 0.5), "viscosity": 0.01}), reference)
    for change in ({"buoyancy": (0, 0.4)}, {"buoyancy": (0.1, 0.5)}, {"viscosity": 0.02}):
        assert relative(solver.step(frames, change), reference) > 1e-5
    each = solver.step(frames, {"buoyancy": torch.tensor([[0, 0.5], [0.5, 0]])})
    assert relative(each[:1], reference[:1]) < 1e-12
    assert relative(each[1:], reference[1:]) > 1e-2


def test_drawn_parameters():
    solver = create("smoke", resolution=4, **DRAWN)
    parameters = solver.initial(range(200)).parameters
    magnitude = parameters["buoyancy"].norm(dim=1)
    assert 0.3 <= float(magnitude.min()) < 0.32
    assert 0.68 < float(magnitude.max()) <= 0.7
    assert float(parameters["buoyancy"].mean(0).abs().max()) < 0.08
    assert 0.005 <= float(parameters["viscosity"].min()) < float(parameters["viscosity"].max()) <= 0.02
    fixed = create("smoke", resolution=4, buoyancy=(0.3, 0.1), viscosity=0.02).initial([0, 1]).parameters
    assert fixed["buoyancy"].tolist() == [[0.3, 0.1]] * 2
    assert fixed["viscosity"].tolist() == [[0.02]] * 2


def test_initial_state_is_smoke_at_rest():
    solver = create("smoke", resolution=16)
    frames = solver.observe(solver.initial([0]))
    assert isinstance(solver, Stepper)
    assert frames.shape == (1, 1, 4, 16, 16)
    assert frames.dtype == torch.float64
    assert float(frames[:, :, 0].min()) >= 0
    assert float(frames[:, :, 0].max()) > 1
    assert float(frames[:, :, 1:].abs().max()) == 0


def test_a_rollout_through_frames_is_one_through_states():
    solver = create("smoke", resolution=32, **DRAWN)
    state = developed(solver)
    frames = solver.observe(state)
    assert difference(solver.restore(frames, state.parameters), state) < 1e-12
    through = rollout(solver, frames, 8, state.parameters)
    in_float32 = rollout(solver, frames.float(), 8, state.parameters)
    assert in_float32.dtype == torch.float32
    for _ in range(8):
        state = solver.advance(state)
    assert relative(through[:, -1:], solver.observe(state)) < 1e-12
    assert relative(in_float32[:, -1:].double(), solver.observe(state)) < 2e-6
    assert float(through[:, :, 3].abs().max()) == 0


def test_state_moves_to_a_device():
    solver = create("smoke", resolution=8)
    state = solver.initial([0]).to("meta")
    assert {value.device.type for group in (state.values, state.parameters) for value in group.values()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = create("smoke", resolution=16, **DRAWN)
    state = solver.initial([0, 1])
    there = solver.advance(solver.advance(state.to("cuda")))
    assert difference(there.to("cpu"), solver.advance(solver.advance(state))) < 1e-12


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"viscosity": 0.02}, r"`viscosity` \(=0.02 m²/s\) is unstable with `dt` \(=1.5 s\) on cells of 0.25 m: .* 0.48"
         r" must not exceed 0.25; take `dt` <= 0.781"),
        ({"viscosity_range": (0.001, 0.02)}, r"`viscosity` \(=0.02 m²/s\) is unstable"),
        ({"resolution": 256}, r"`viscosity` \(=0.01 m²/s\) is unstable .* take `dt` <= 0.391"),
        ({"viscosity": -0.1}, r"`viscosity` \(=-0.1\) must be a finite number in m²/s, at least 0"),
        ({"viscosity": "thick"}, r"`viscosity` \(='thick'\) must be a finite number"),
        ({"buoyancy": (1, 2, 3)}, r"`buoyancy` \(=\(1, 2, 3\)\) must have 2 components, in m/s²"),
        ({"buoyancy": 0.5}, r"`buoyancy` \(=0.5\) must have 2 components"),
        ({"buoyancy": (0, 1), "buoyancy_range": (0, 1)}, "`buoyancy` .* and `buoyancy_range` .* exclude each other"),
        ({"buoyancy_range": (1, 0.5)}, r"`buoyancy_range` \(=\(1, 0.5\)\) must be a pair"),
        ({"viscosity_range": 0.1}, r"`viscosity_range` \(=0.1\) must be a pair"),
        ({"viscosity": "0.01"}, r"`viscosity` \(='0.01'\) must be a finite number"),
        ({"buoyancy": [True, False]}, r"`buoyancy` \(=True\) must be a finite number in m/s²"),
        ({"buoyancy_range": (-1, 0.5)}, r"`buoyancy_range` \(=-1\) must be a finite number, at least 0"),
        ({"dt": True}, r"`dt` \(=True\) must be a finite number in s above 0"),
        ({"scale": True}, r"`scale` \(=True\) must be a finite number"),
        ({"smoothness": True}, r"`smoothness` \(=True\) must be a finite number"),
        ({"resolution": True}, r"`resolution` \(=True\) must be a whole number"),
        ({"resolution": 3}, r"`resolution` \(=3\) must be a whole number of cells a side, at least 4"),
        ({"resolution": "fine"}, r"`resolution` \(='fine'\) must be a whole number"),
        ({"dim": 1}, r"`dim` \(=1\) must be 2 or 3"),
        ({"dt": 0}, r"`dt` \(=0\) must be a finite number in s above 0"),
        ({"size": math.inf}, r"`size` \(=inf\) must be a finite number in m above 0"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("smoke", **options)


def test_bad_input_of_a_step_is_refused():
    solver = create("smoke", resolution=16)
    frames = solver.observe(solver.initial([0, 1]))
    with pytest.raises(ValueError, match=r"`viscosity` \(=2 m²/s\) is unstable"):
        solver.step(frames, {"viscosity": 2.0})
    with pytest.raises(ValueError, match="the grid's, \\(16, 16\\)"):
        solver.step(frames[..., :12])
    frames[1, 0, 1, 3, 3] = math.nan
    with pytest.raises(ValueError, match="`frames` holds NaN or infinite values in trajectory 1 of the batch"):
        solver.step(frames)


@pytest.mark.parametrize("parameter", [{"buoyancy": (math.nan, 0.0)}, {"viscosity": math.nan}], ids=str)
def test_parameters_that_are_not_finite_are_refused(parameter):
    solver = create("smoke", resolution=8)
    name = next(iter(parameter))
    with pytest.raises(ValueError, match=rf"`{name}` \(=\[\[nan.*must be finite"):
        solver.step(solver.observe(solver.initial([0])), parameter)


def test_no_trajectories_at_all():
    solver = create("smoke", resolution=np.int64(8))
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 4, 8, 8)
    assert solver.step(torch.zeros(0, 1, 4, 8, 8)).shape == (0, 1, 4, 8, 8)
