import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import State, create
from cliffsteer.stepper import Stepper
from cliffsteer.testing import assert_equivariant

SMALL = {"resolution": 12, "scale": 0.4}
DRAWN = {"klein_gordon": {"mass_range": (1.0, 20.0)}, "wave": {"speed_range": (0.5, 2.0)}}
NAMES = sorted(DRAWN)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def advanced(solver, state, steps=1):
    for _ in range(steps):
        state = solver.advance(state)
    return state


def plane_wave(solver, waves, parameter, t):
    """Fields cos(k·x − ωt) and ω sin(k·x − ωt) of ``waves`` per side, (1, *grid) each."""
    k = 2 * math.pi / solver.grid.extent[0] * torch.tensor(waves, dtype=torch.float64)
    omega = math.sqrt(float(k.square().sum()) + parameter**2)
    if solver.name == "wave":
        omega = parameter * float(k.norm())
    phase = torch.tensordot(k, solver.grid.coordinates(), 1) - omega * t
    return {"phi": phase.cos()[None], "pi": omega * phase.sin()[None]}


# ------------------------------------------------------------------------------------- exact and analytic solutions


@pytest.mark.parametrize(("name", "parameter"), [("klein_gordon", 7.0), ("klein_gordon", 0.0), ("wave", 1.5)])
@pytest.mark.parametrize("waves", [(2,), (2, -3), (1, -2, 2)], ids=str)
def test_plane_waves_obey_the_dispersion_relation(name, parameter, waves):
    options = {"mass" if name == "klein_gordon" else "speed": parameter}
    solver = create(name, resolution=8, size=1.3, dt=0.37, dim=len(waves), scale=1.0, **options)
    state = State(plane_wave(solver, waves, parameter, 0.0), solver.initial([0]).parameters)
    state = advanced(solver, state, 10)
    for field, expected in plane_wave(solver, waves, parameter, 3.7).items():
        torch.testing.assert_close(state.values[field], expected, rtol=1e-12, atol=1e-12)


def test_one_dimensional_waves_keep_their_shape():
    # d'Alembert: f(x − ct) for any f on the grid; whole cells in a step make it a shift, shortest waves included.
    solver = create("wave", resolution=15, dim=1, dt=0.4, speed=2.0, size=3.0, scale=1.0)
    shape = torch.randn(1, 15, dtype=torch.float64)
    k = 2 * math.pi / 3 * torch.fft.rfftfreq(15, 1 / 15, dtype=torch.float64)
    slope = torch.fft.irfft(1j * k * torch.fft.rfft(shape), n=15)
    state = State({"phi": shape, "pi": -2.0 * slope}, solver.initial([0]).parameters)
    torch.testing.assert_close(solver.advance(state).values["phi"], shape.roll(4, 1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_drifts_or_oscillates(name):
    solver = create(name, resolution=4, dt=0.1, scale=1.0)
    flat = torch.ones(1, 4, 4, dtype=torch.float64)
    end = advanced(solver, State({"phi": 2 * flat, "pi": 3 * flat}, solver.initial([0]).parameters), 5)
    omega = 10.0 if name == "klein_gordon" else 0.0
    expected = 2 * math.cos(omega * 0.5) + 3 * (math.sin(omega * 0.5) / omega if omega else 0.5)
    torch.testing.assert_close(end.values["phi"], expected * flat, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_equation_holds(name, dim):
    # ∂ₜ²φ and ∂ₜφ = π by central differences of φ at three times, an error of O(Δt²); ∇²φ spectrally.
    errors = []
    for dt in (4e-3, 2e-3, 1e-3):
        solver = create(name, resolution=9, dim=dim, dt=dt, scale=0.5)
        before = solver.initial([0, 1])
        now = solver.advance(before)
        after = solver.advance(now)
        second = (after.values["phi"] - 2 * now.values["phi"] + before.values["phi"]) / dt**2
        first = (after.values["phi"] - before.values["phi"]) / (2 * dt)
        axes = tuple(range(-dim, 0))
        c = torch.fft.fftn(now.values["phi"], dim=axes)
        k = torch.stack(
            torch.meshgrid(*[2 * math.pi * torch.fft.fftfreq(9, 1 / 9, dtype=torch.float64)] * dim, indexing="ij")
        )
        laplacian = torch.fft.ifftn(-k.square().sum(0) * c, dim=axes).real
        expected = laplacian - 100 * now.values["phi"] if name == "klein_gordon" else laplacian
        errors.append((relative(second, expected), relative(first, now.values["pi"])))
    for a, b in itertools.pairwise(errors):
        assert all(1.9 < math.log2(x / y) < 2.1 for x, y in zip(a, b, strict=True)), errors


def test_no_mass_is_the_wave_equation():
    massless, wave = create("klein_gordon", mass=0, **SMALL), create("wave", **SMALL)
    frames = wave.observe(wave.initial([0, 1]))
    assert torch.equal(massless.step(frames), wave.step(frames))


@pytest.mark.parametrize("name", NAMES)
def test_one_long_step_is_many_short_ones_and_time_runs_backwards(name):
    short, long = create(name, **SMALL, dt=0.01), create(name, **SMALL, dt=0.5)
    start = short.initial([0, 1])
    a, b = advanced(short, start, 50), long.advance(start)
    assert relative(a.values["phi"], b.values["phi"]) < 1e-12
    back = long.advance(State({"phi": b.values["phi"], "pi": -b.values["pi"]}, b.parameters))
    assert relative(back.values["phi"], start.values["phi"]) < 1e-13
    assert relative(-back.values["pi"], start.values["pi"]) < 1e-13


# -------------------------------------------------------------------------------------------------- conservation


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dim", "n"), [(1, 16), (2, 9), (3, 8)])
def test_energy_is_conserved_to_rounding(name, dim, n):
    solver = create(name, resolution=n, dim=dim, scale=0.6, **DRAWN[name])
    start = solver.initial([0, 1, 2])
    torch.testing.assert_close(solver.energy(advanced(solver, start, 100)), solver.energy(start), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_frames_tell_what_is_conserved(name):
    solver = create(name, resolution=9, scale=0.6)
    start = solver.initial([0, 1])
    frames = rollout(solver, solver.observe(start), 5)
    kept = solver.conserved(frames)["energy"]
    assert kept.shape == (2, 5)
    torch.testing.assert_close(kept, solver.energy(start)[:, None].expand(2, 5), rtol=1e-12, atol=0)
    drawn = create(name, resolution=9, scale=0.6, **DRAWN[name])
    start = drawn.initial([0, 1])
    frames = rollout(drawn, drawn.observe(start), 5, start.parameters)
    assert drawn.conserved(frames) == {}
    kept = drawn.conserved(frames, start.parameters)["energy"]
    torch.testing.assert_close(kept, drawn.energy(start)[:, None].expand(2, 5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [8, 9])
def test_energy_is_that_of_the_field(n):
    # <π² + φ_x² + φ_y² + m²φ²>/2 with φ = cos(k·x): derivatives by hand.
    solver = create("klein_gordon", resolution=n, size=2.0, mass=3.0, scale=2.0)
    x = solver.grid.coordinates()
    k = math.pi * torch.tensor([1.0, 2.0], dtype=torch.float64)
    phase = torch.tensordot(k, x, 1)
    pi = 0.7 * (math.pi * x[0]).sin()
    energy = (pi.square() + k.square().sum() * phase.sin().square() + 9 * phase.cos().square()).mean() / 2
    state = State({"phi": phase.cos()[None], "pi": pi[None]}, solver.initial([0]).parameters)
    torch.testing.assert_close(solver.energy(state), energy[None], rtol=1e-13, atol=0)


# ------------------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dim", "n"), [(1, 12), (2, 9), (3, 6)])
def test_all_symmetries_of_the_grid(name, dim, n):
    solver = create(name, resolution=n, dim=dim, scale=0.6)
    frames = torch.randn(2, 1, solver.spec.n_blades, *solver.grid.shape, dtype=torch.float64)
    frames[:, :, ~solver.spec.occupied] = 0
    assert_equivariant(lambda x: rollout(solver, x, 3), frames, solver.spec.algebra, grid=solver.grid)
    axes = tuple(range(-dim, 0))
    shift = (2, 1, 3)[:dim]
    assert relative(solver.step(frames.roll(shift, axes)), solver.step(frames).roll(shift, axes)) < 1e-14


# ---------------------------------------------------------------------------------------- seeds, options, frames


@pytest.mark.parametrize("name", NAMES)
def test_seeds_decide_every_bit_whatever_the_batch(name):
    solver = create(name, **SMALL, **DRAWN[name])
    together, alone = solver.initial([7, 3, 5]), solver.initial([3])
    assert relative(together.values["phi"][0], together.values["phi"][1]) > 0.1
    for _ in range(3):
        for group in ("values", "parameters"):
            for key, value in getattr(together, group).items():
                assert torch.equal(value[1:2], getattr(alone, group)[key])
        together, alone = solver.advance(together), solver.advance(alone)


def test_initial_fields_share_their_energy():
    solver = create("klein_gordon", resolution=32)
    values = solver.initial(range(40)).values
    torch.testing.assert_close(values["phi"].square().mean((1, 2)), torch.ones(40, dtype=torch.float64))
    potential = solver.energy(
        State({"phi": values["phi"], "pi": 0 * values["pi"]}, solver.initial(range(40)).parameters)
    )
    kinetic = values["pi"].square().mean((1, 2)) / 2
    assert float(kinetic.mean() / potential.mean()) == pytest.approx(1, abs=0.2)


CHANGES = {
    "resolution": 16,
    "size": 0.9,
    "dt": 0.06,
    "dim": 3,
    "scale": 0.2,
    "smoothness": 2.0,
    "mass": 11.0,
    "mass_range": (5.0, 6.0),
    "speed": 1.1,
    "speed_range": (0.5, 0.6),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_changes_the_output(name):
    solver = create(name, **SMALL)
    options = set(inspect.signature(type(solver)).parameters)
    assert options < set(CHANGES)
    reference = solver.observe(solver.advance(solver.initial([0])))
    for option in options:
        other = create(name, **{**SMALL, option: CHANGES[option]})
        frames = other.observe(other.advance(other.initial([0])))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-3, option


@pytest.mark.parametrize("name", NAMES)
def test_frames(name):
    solver = create(name, **SMALL, **DRAWN[name])
    state = solver.initial([0, 1])
    frames = solver.observe(state)
    assert isinstance(solver, Stepper)
    assert solver.time_unit == {"klein_gordon": "m/c", "wave": "s"}[name]
    assert frames.shape == (2, 1, 8, 12, 12)  # two scalars take two multivectors
    assert torch.equal(frames[:, 0, 0], state.values["phi"])
    assert torch.equal(frames[:, 0, 4], state.values["pi"])
    through = rollout(solver, frames.float(), 5, state.parameters)
    assert through.dtype == torch.float32
    assert relative(through[:, -1:].double(), solver.observe(advanced(solver, state, 5))) < 1e-6
    parameter = solver.parameter.name
    low, high = next(iter(DRAWN[name].values()))
    drawn = solver.initial(range(40)).parameters[parameter]
    assert low <= float(drawn.min()) < float(drawn.max()) <= high


@pytest.mark.parametrize("name", NAMES)
def test_the_parameter_can_be_learned_from_a_step(name):
    solver = create(name, resolution=8, dim=1, scale=0.5)
    parameter = solver.parameter.name
    frames = solver.observe(solver.initial([0]))

    def loss(value):
        return solver.step(frames, {parameter: value})[:, :, 0].pow(4).sum()

    loss(2.0)  # what is kept for these parameters must not be used again
    value = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(value), value)
    around = [float(loss(2.0 + h)) for h in (-1e-5, 1e-5)]
    assert float(slope) == pytest.approx((around[1] - around[0]) / 2e-5, rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_an_accelerator(name):
    solver = create(name, **SMALL)
    state = solver.initial([0, 1])
    there = advanced(solver, state.to("cuda"), 2).to("cpu")
    assert relative(there.values["phi"], advanced(solver, state, 2).values["phi"]) < 1e-12


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wave", {"resolution": 3}, r"`resolution` \(=3\) must be a whole number of cells a side, at least 4"),
        ("wave", {"dim": 4}, r"`dim` \(=4\) must be 1 or 2 or 3"),
        ("wave", {"speed": -1}, r"`speed` \(=-1\) must be a finite number in m/s, at least 0"),
        ("wave", {"dt": math.inf}, r"`dt` \(=inf\) must be a finite number in s above 0"),
        ("klein_gordon", {"mass": 1e200}, r"`mass` \(=1e\+200 1/m\) is too large for `dt` \(=0.05 m/c\): .* by inf"),
        ("klein_gordon", {"mass_range": (1, 1e8)}, r"`mass` \(=1e\+08 1/m\) is too large .* by 5e\+06"),
        ("wave", {"speed": 1.0, "dt": 1e9}, r"`speed` \(=1 m/s\) is too large for `dt`"),
        ("klein_gordon", {"dt": 0}, r"`dt` \(=0\) must be a finite number in m/c above 0"),
        ("klein_gordon", {"mass": 1, "mass_range": (1, 2)}, "`mass` .* and `mass_range` .* exclude each other"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_bad_parameters_are_refused(name):
    solver = create(name, **SMALL)
    parameter = solver.parameter.name
    with pytest.raises(ValueError, match=rf"`{parameter}` \(=-1 .*\) must be finite and at least 0: .* trajectory 1"):
        solver.step(solver.observe(solver.initial([0, 1])), {parameter: [[1.0], [-1.0]]})


@pytest.mark.parametrize("name", NAMES)
def test_no_trajectories_at_all(name):
    solver = create(name, resolution=np.int64(8), scale=1.0)
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 8, 8, 8)
    assert solver.step(torch.zeros(0, 1, 8, 8, 8)).shape == (0, 1, 8, 8, 8)
