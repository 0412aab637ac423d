import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import State, UnstableError, create
from cliffsteer.solvers.shallow_water import ShallowWater
from cliffsteer.stepper import Stepper
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

SMALL = {"resolution": 16, "scale": 3e6}
DRAWN = {"coriolis_range": (-1e-4, 1e-4), "gravity_range": (5.0, 10.0)}
UNITS = {"size": 2 * math.pi, "gravity": 1.0, "depth": 1.0, "damping": 0.0, "scale": 2.0, "speed": 0.1, "bump": 0.01}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def anomaly(solver, frames):
    """Frames with the mean height taken away, and √(g/H) η for the height: all components of one size."""
    depth = frames[:, :, :1].mean((-1, -2), keepdim=True)
    scale = math.sqrt(solver.spec["gravity"].default[0] / solver.depth)
    return torch.cat([(frames[:, :, :1] - depth) * scale, frames[:, :, 1:]], 2)


def advanced(solver, state, steps=1):
    for _ in range(steps):
        state = solver.advance(state)
    return state


def with_flow(solver, height, velocity):
    """A state of one trajectory with these fields."""
    return State({"height": height[None], "velocity": velocity[None]}, solver.initial([0]).parameters)


# ------------------------------------------------------------------------------------- exact and analytic solutions


@pytest.mark.parametrize("coriolis", [0.0, 0.8, -0.8])
def test_a_small_inertia_gravity_wave_is_exact_in_steps_longer_than_its_period(coriolis):
    # η = ε cos(k·x − ωt), ω² = f² + gHk²; u = (ω k̂ cos + f ẑ×k̂ sin) ε/(H|k|): errors of O(ε²).
    solver = create("shallow_water", resolution=16, dt=7.0, substeps=1, coriolis=coriolis, **UNITS)
    k = torch.tensor([2.0, -1.0], dtype=torch.float64)
    k_norm = float(k.norm())
    omega, amplitude = math.sqrt(coriolis**2 + k_norm**2), 1e-7
    assert omega * 7 > 2 * math.pi

    def wave(t):
        phase = torch.tensordot(k, solver.grid.coordinates(), 1) - omega * t
        along, across = k / k_norm, torch.stack([-k[1], k[0]]) / k_norm
        velocity = omega * along[:, None, None] * phase.cos() + coriolis * across[:, None, None] * phase.sin()
        return 1 + amplitude * phase.cos(), velocity * amplitude / k_norm

    end = advanced(solver, with_flow(solver, *wave(0.0)), 3)
    height, velocity = wave(21.0)
    assert float((end.values["height"][0] - height).abs().max()) < 1e-5 * amplitude
    assert float((end.values["velocity"][0] - velocity).abs().max()) < 1e-5 * amplitude


def test_a_mean_flow_oscillates_inertially():
    solver = create("shallow_water", resolution=8, dt=3.0, substeps=4, coriolis=0.5, **UNITS | {"scale": 4.0})
    flat = torch.ones(8, 8, dtype=torch.float64)
    end = advanced(solver, with_flow(solver, flat, torch.stack([0.2 * flat, 0 * flat])), 2)
    expected = 0.2 * torch.tensor([math.cos(3.0), -math.sin(3.0)], dtype=torch.float64)
    torch.testing.assert_close(end.values["velocity"][0].mean((1, 2)), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(end.values["height"][0], flat, rtol=0, atol=1e-14)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_geostrophic_jet_is_stationary_at_any_speed(axis):
    # u = U(y) along x with fU = −g dh/dy, or along y: the nonlinear terms vanish.
    solver = create("shallow_water", resolution=24, damping=0.0)
    f, g = 1e-4, 9.81
    x = solver.grid.coordinates()[1 - axis]
    k = 2 * math.pi * 2 / solver.grid.extent[0]
    psi = 80.0 / k * (k * x).sin()
    velocity = torch.zeros(2, 24, 24, dtype=torch.float64)
    velocity[axis] = (-1 if axis == 0 else 1) * 80.0 * (k * x).cos()
    start = with_flow(solver, 1000 + f / g * psi, velocity)
    end = advanced(solver, start, 24)
    torch.testing.assert_close(end.values["velocity"], start.values["velocity"], rtol=0, atol=1e-10)
    torch.testing.assert_close(end.values["height"], start.values["height"], rtol=0, atol=1e-9)


def simple_wave(x, t):
    """Riemann's simple wave for g = H = 1: h₀ = (1 + 0.05 sin x)², u = 2(√h − 1), carried along x + (3√h₀ − 2) t."""
    start = x.clone()
    for _ in range(60):
        start = x - (3 * (1 + 0.05 * start.sin()) - 2) * t
    root = 1 + 0.05 * start.sin()
    return root.square(), 2 * (root - 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_simple_wave_of_finite_height_converges_with_order_four(axis):
    errors, depth = [], 1 + 0.05**2 / 2
    for substeps in (2, 4, 8):
        solver = create("shallow_water", resolution=48, dt=0.8, substeps=substeps, coriolis=0.0, **UNITS)
        x = solver.grid.coordinates()[axis]

        def fields(t, x=x):
            height, speed = simple_wave(x, t)
            velocity = torch.zeros(2, 48, 48, dtype=torch.float64)
            velocity[axis] = speed
            return height, velocity

        end = advanced(solver, with_flow(solver, *fields(0.0)), 2)
        height, velocity = fields(1.6)
        assert float(height.mean()) == pytest.approx(depth, abs=1e-12)
        errors.append(relative(end.values["height"][0] - depth, height - depth))
        assert relative(end.values["velocity"][0], velocity) < 2 * errors[-1]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(3.7 < order < 4.4 for order in orders), (errors, orders)
    assert errors[-1] < 1e-6


def test_the_whole_system_converges_with_order_four():
    frames = []
    for substeps in (4, 8, 16):
        solver = create("shallow_water", resolution=24, dt=7200.0, substeps=substeps, speed=20, bump=20, scale=2e6)
        frames.append(anomaly(solver, solver.observe(solver.advance(solver.initial([0])))))
    coarse, fine = (relative(a, b) for a, b in itertools.pairwise(frames))
    assert 3.7 < math.log2(coarse / fine) < 4.5, (coarse, fine)
    assert fine < 1e-4


# -------------------------------------------------------------------------------------------------- conservation


def available_energy(solver, state):
    """Energy less that of the still water, gH²/2, which is most of it."""
    still = state.parameters["gravity"][:, 0] * state.values["height"].mean((1, 2)).square() / 2
    return solver.energy(state) - still


def test_mass_and_energy_are_conserved_without_damping():
    solver = create("shallow_water", resolution=48, dt=900.0, substeps=2, damping=0.0, **DRAWN)
    start = solver.initial([0, 1])
    end = advanced(solver, start, 12)
    assert relative(end.values["velocity"], start.values["velocity"]) > 0.05
    mass = [s.values["height"].mean((1, 2)) for s in (start, end)]
    torch.testing.assert_close(mass[1], mass[0], rtol=1e-15, atol=0)
    energy = [available_energy(solver, s) for s in (start, end)]
    torch.testing.assert_close(energy[1], energy[0], rtol=1e-6, atol=0)
    frames = torch.cat([solver.observe(s) for s in (start, end)], 1)
    kept = solver.conserved(frames, start.parameters)
    torch.testing.assert_close(kept["mass"], torch.stack(mass, 1), rtol=1e-13, atol=0)
    torch.testing.assert_close(kept["energy"], torch.stack(energy, 1), rtol=1e-7, atol=0)
    assert set(solver.conserved(frames)) == {"mass"}  # gravity was drawn


def test_energy_errors_vanish_with_resolution():
    drifts = []
    for n in (16, 32, 48):
        solver = create("shallow_water", resolution=n, dt=1800.0, damping=0.0, scale=2.5e6)
        start = solver.initial([0])
        drifts.append(
            abs(float(available_energy(solver, advanced(solver, start, 6)) / available_energy(solver, start) - 1))
        )
    assert drifts[0] > 10 * drifts[1] > 50 * drifts[2], drifts


def test_damping_is_that_of_the_fourth_derivative():
    # The shortest wave kept along an axis decays at the rate told, others by (k/k_max)⁴; here jets, which stand still.
    solver = create("shallow_water", resolution=16, damping=1e-4, coriolis=0.0)
    y = solver.grid.coordinates()[1]
    for wave in (2, 5):
        shape = (2 * math.pi * wave / solver.grid.extent[1] * y).sin()
        start = with_flow(solver, torch.full_like(y, 1000.0), torch.stack([1e-3 * shape, 0 * y]))
        end = solver.advance(start)
        expected = start.values["velocity"] * math.exp(-1e-4 * (wave / 5) ** 4 * 3600)
        torch.testing.assert_close(end.values["velocity"], expected, rtol=0, atol=1e-12)


def test_the_initial_flow_is_geostrophic_but_for_the_bumps():
    solver = create("shallow_water", resolution=32, bump=0.0, coriolis=8e-5)
    state = solver.initial([0, 1])
    h, u = (solver.spectral.forward(state.values[name]) for name in ("height", "velocity"))
    ik = solver.spectral.derivatives()
    coriolis, pressure = 8e-5 * torch.stack([-u[:, 1], u[:, 0]], 1), 9.81 * ik * h[:, None]
    torch.testing.assert_close(coriolis, -pressure, rtol=0, atol=1e-14)
    rms = state.values["velocity"].square().sum(1).mean((1, 2)).sqrt()
    torch.testing.assert_close(rms, torch.full((2,), 10.0, dtype=torch.float64))
    bumps = create("shallow_water", resolution=32, bump=7.0, coriolis=0.0).initial([0, 1]).values["height"] - 1000
    torch.testing.assert_close(bumps.square().mean((1, 2)).sqrt(), torch.full((2,), 7.0, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------------ symmetry


def test_equivariant_when_the_coriolis_parameter_turns_along():
    solver = create("shallow_water", **SMALL, **DRAWN)
    state = advanced(solver, solver.initial([0, 1]), 2)
    frames, packed = solver.observe(state), solver.spec.pack_parameters(state.parameters, 2, torch.float64)

    def two_steps(frames, packed):
        return rollout(solver, frames, 2, solver.spec.unpack_parameters(packed))

    reference = two_steps(frames, packed)
    algebra, elements = solver.spec.algebra, list(lattice_symmetries(solver.spec.algebra, solver.grid))
    assert len(elements) == 8
    for g in elements:
        out = two_steps(g.act(algebra, frames), g.turn(algebra, packed))
        assert relative(anomaly(solver, out), anomaly(solver, g.act(algebra, reference))) < 1e-12
    mirror = next(g for g in elements if g.signs == (-1, 1) and g.axes == (0, 1))
    left_behind = two_steps(mirror.act(algebra, frames), packed)
    assert relative(anomaly(solver, left_behind), anomaly(solver, mirror.act(algebra, reference))) > 1e-2


def test_without_rotation_of_the_earth_all_symmetries_hold():
    solver = create("shallow_water", **SMALL, coriolis=0.0)
    frames = solver.observe(advanced(solver, solver.initial([0, 1]), 2))
    assert_equivariant(solver.step, frames, solver.spec.algebra, grid=solver.grid)
    shifted = solver.step(frames.roll((3, 1), (-2, -1)))
    assert relative(shifted, solver.step(frames).roll((3, 1), (-2, -1))) < 1e-13


# ---------------------------------------------------------------------------------------- seeds, options, frames


def test_seeds_decide_everything_whatever_the_batch():
    # Initial states bit by bit; later ones to rounding: products of complex numbers end in other bits where a vector of
    # the processor is not full, at the end of a batch.
    solver = create("shallow_water", **SMALL, **DRAWN)
    together, again, alone = solver.initial([7, 3, 5]), solver.initial([7, 3, 5]), solver.initial([3])
    assert relative(together.values["velocity"][0], together.values["velocity"][1]) > 0.1
    for group in ("values", "parameters"):
        for name, value in getattr(together, group).items():
            assert torch.equal(value[1:2], getattr(alone, group)[name])
    together, again, alone = (advanced(solver, state, 3) for state in (together, again, alone))
    for name, value in together.values.items():
        assert torch.equal(value, again.values[name])
        assert relative(value[1:2], alone.values[name]) < 1e-13


CHANGES = {
    "resolution": 18,
    "size": 9e6,
    "dt": 3000.0,
    "substeps": 3,
    "coriolis": 9e-5,
    "coriolis_range": (-1e-4, -5e-5),
    "gravity": 9.0,
    "gravity_range": (8.0, 9.0),
    "depth": 900.0,
    "speed": 9.0,
    "bump": 1.0,
    "scale": 4e6,
    "smoothness": 3.0,
    "damping": 1e-4,
}


def test_every_option_changes_the_output():
    assert set(inspect.signature(ShallowWater).parameters) == set(CHANGES)
    solver = create("shallow_water", **SMALL)
    reference = solver.observe(advanced(solver, solver.initial([0]), 2))
    for option, value in CHANGES.items():
        other = create("shallow_water", **{**SMALL, option: value})
        frames = other.observe(advanced(other, other.initial([0]), 2))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-9, option


def test_drawn_parameters():
    parameters = create("shallow_water", resolution=8, scale=4e6, **DRAWN).initial(range(60)).parameters
    assert -1e-4 <= float(parameters["coriolis"].min()) < -8e-5
    assert 8e-5 < float(parameters["coriolis"].max()) <= 1e-4
    assert 5 <= float(parameters["gravity"].min()) < float(parameters["gravity"].max()) <= 10


def test_frames():
    solver = create("shallow_water", **SMALL)
    state = advanced(solver, solver.initial([0, 1]), 2)
    frames = solver.observe(state)
    assert isinstance(solver, Stepper)
    assert frames.shape == (2, 1, 4, 16, 16)
    assert float(frames[:, :, 3].abs().max()) == 0
    through = rollout(solver, frames, 4, state.parameters)
    single = rollout(solver, frames.float(), 4, state.parameters)
    expected = solver.observe(advanced(solver, state, 4))
    assert relative(anomaly(solver, through[:, -1:]), anomaly(solver, expected)) < 1e-12
    assert single.dtype == torch.float32
    assert relative(anomaly(solver, single[:, -1:].double()), anomaly(solver, expected)) < 1e-5


def test_gradients_pass_through_a_step():
    solver = create("shallow_water", **SMALL)
    frames = solver.observe(solver.initial([0]))
    f = torch.tensor([[1e-4]], dtype=torch.float64, requires_grad=True)

    def loss(coriolis):
        return anomaly(solver, solver.step(frames, {"coriolis": coriolis})).square().sum()

    (slope,) = torch.autograd.grad(loss(f), f)
    around = [float(loss(1e-4 + h)) for h in (-1e-7, 1e-7)]
    assert float(slope) == pytest.approx((around[1] - around[0]) / 2e-7, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = create("shallow_water", **SMALL)
    state = solver.initial([0, 1])
    there = advanced(solver, state.to("cuda"), 2).to("cpu")
    assert relative(there.values["velocity"], advanced(solver, state, 2).values["velocity"]) < 1e-11


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 4}, r"`resolution` \(=4\) must be a whole number of cells a side, at least 8"),
        ({"gravity": 0}, r"`gravity` \(=0\) must be a finite number in m/s² above 0"),
        ({"coriolis": "north"}, r"`coriolis` \(='north'\) must be a finite number in 1/s"),
        ({"coriolis": 0, "coriolis_range": (0, 1)}, "`coriolis` .* and `coriolis_range` .* exclude each other"),
        ({"depth": -1}, r"`depth` \(=-1\) must be a finite number in m above 0"),
        ({"damping": -1}, r"`damping` \(=-1\) must be a finite number in 1/s, at least 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("shallow_water", **options)


def test_bad_input_is_refused():
    solver = create("shallow_water", **SMALL)
    frames = solver.observe(solver.initial([0, 1]))
    with pytest.raises(ValueError, match=r"`gravity` \(=-1 m/s²\) must be finite and above 0: .* trajectory 0"):
        solver.step(frames, {"gravity": -1.0})
    with pytest.raises(ValueError, match=r"`coriolis` \(=nan 1/s\) must be finite"):
        solver.step(frames, {"coriolis": math.nan})
    with pytest.raises(ValueError, match=r"`frames` gives heights down to -.* m: shallow water must cover the bottom"):
        solver.step(torch.cat([frames[:, :, :1] - 1000, frames[:, :, 1:]], 2))
    with pytest.raises(ValueError, match=r"`substeps` \(=2\) is unstable with `dt` .* take `substeps` >= \d+\."):
        solver.step(torch.cat([frames[:, :, :1], 100 * frames[:, :, 1:]], 2))
    with pytest.raises(UnstableError, match=r"`bump` gives heights down to"):
        create("shallow_water", **SMALL, depth=10.0, bump=10.0).initial([0])


@pytest.mark.parametrize(("name", "factor"), [("velocity", 1000), ("height", -1)])
def test_an_unstable_batch_tells_which_of_its_trajectories_are(name, factor):
    solver = create("shallow_water", **SMALL)
    state = solver.initial([0, 1])
    state.values[name][1] *= factor
    with pytest.raises(UnstableError) as caught:
        solver.advance(state)
    assert caught.value.which == (1,)


def test_no_trajectories_at_all():
    solver = create("shallow_water", resolution=np.int64(8), scale=4e6)
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 4, 8, 8)
    assert solver.step(torch.zeros(0, 1, 4, 8, 8)).shape == (0, 1, 4, 8, 8)
