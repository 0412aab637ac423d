import inspect
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import State, UnstableError, create
from cliffsteer.solvers.turbulence import Turbulence
from cliffsteer.stepper import Stepper
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

SMALL = {"resolution": 16, "scale": 2.0, "substeps": 2}
DRAWN = {"viscosity_range": (0.005, 0.02), "diffusivity_range": (0.001, 0.01)}
FORCED = {"forcing": "kolmogorov", "force_waves": 2}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def developed(solver, seeds=(0, 1), steps=3):
    state = solver.initial(seeds)
    for _ in range(steps):
        state = solver.advance(state)
    return state


def with_flow(solver, velocity, scalar=None):
    """A state of one trajectory with these fields."""
    state = solver.initial([0])
    scalar = torch.zeros_like(velocity[0]) if scalar is None else scalar
    return State({"scalar": scalar[None], "velocity": velocity[None]}, state.parameters)


def advanced(solver, state, steps=1):
    for _ in range(steps):
        state = solver.advance(state)
    return state


def mean(x):
    """Over the domain and the components, for each trajectory."""
    return x.flatten(1).sum(1) / x[0, 0].numel()


# ------------------------------------------------------------------------------------- exact and analytic solutions


def taylor_green(x, y, wave=1.0):
    return torch.stack([(wave * x).sin() * (wave * y).cos(), -(wave * x).cos() * (wave * y).sin()])


def test_taylor_green_vortices_decay_exactly():
    solver = create("turbulence", resolution=16, viscosity=0.05, diffusivity=0.1, dt=0.3, substeps=2)
    x, y = solver.grid.coordinates()
    # A scalar that is a function of the stream function is not carried anywhere either.
    start = with_flow(solver, taylor_green(x, y, 2.0), (2 * x).sin() * (2 * y).sin())
    end = advanced(solver, start, 5)
    for name, kappa in (("velocity", 0.05), ("scalar", 0.1)):
        expected = start.values[name] * math.exp(-kappa * 8 * 1.5)
        torch.testing.assert_close(end.values[name], expected, rtol=0, atol=1e-14)


def test_arnold_beltrami_childress_flow_decays_exactly_in_space():
    solver = create("turbulence", resolution=10, dim=3, viscosity=0.05, dt=0.3, substeps=2)
    x, y, z = solver.grid.coordinates()
    a, b, c = 0.9, 0.7, 0.5
    velocity = [a * z.sin() + c * y.cos(), b * x.sin() + a * z.cos(), c * y.sin() + b * x.cos()]
    start = with_flow(solver, torch.stack(velocity))
    end = advanced(solver, start, 4)
    torch.testing.assert_close(
        end.values["velocity"], start.values["velocity"] * math.exp(-0.05 * 1.2), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_vortices_carried_by_a_uniform_flow_converge_with_order_four(dim):
    # u = U + v(x − Ut) e^{−2νt}, with Taylor-Green vortices v in the first two axes, solves the equations (Galilei).
    errors = {"velocity": [], "scalar": []}
    nu, kappa, dt = 0.02, 0.05, 1.0
    for substeps in (4, 8, 16):
        solver = create("turbulence", resolution=8, dim=dim, viscosity=nu, diffusivity=kappa, dt=dt, substeps=substeps)
        drift = torch.tensor([0.8, -0.5, 0.3][:dim], dtype=torch.float64).view(-1, *[1] * dim)

        def fields(t, solver=solver, drift=drift):
            x = solver.grid.coordinates() - drift * t
            velocity = torch.zeros_like(x)
            velocity[:2] = taylor_green(x[0], x[1]) * math.exp(-2 * nu * t)
            return drift + velocity, (x[0].sin() * x[1].sin() + 0.5) * math.exp(-2 * kappa * t) + 0.5 * (
                1 - math.exp(-2 * kappa * t)
            )

        end = solver.advance(with_flow(solver, *fields(0.0)))
        for (name, found), exact in zip(errors.items(), fields(dt), strict=True):
            found.append(relative(end.values[name][0], exact))
    for name, found in errors.items():
        orders = [math.log2(a / b) for a, b in itertools.pairwise(found)]
        assert all(3.8 < order < 4.3 for order in orders), (name, found, orders)
        assert found[-1] < 1e-5


@pytest.mark.parametrize(
    ("dim", "options"), [(2, {"resolution": 24}), (2, {"resolution": 24, **FORCED}), (3, {"resolution": 10})]
)
def test_turbulence_converges_with_order_four(dim, options):
    frames = []
    for substeps in (8, 16, 32):
        solver = create("turbulence", dim=dim, dt=0.5, scale=2.0, viscosity=0.01, substeps=substeps, **options)
        frames.append(solver.observe(solver.advance(solver.initial([0]))))
    coarse, fine = (relative(a, b) for a, b in itertools.pairwise(frames))
    assert 3.6 < math.log2(coarse / fine) < 4.5, (coarse, fine)
    assert fine < 1e-4


def test_a_forced_shear_reaches_its_laminar_profile():
    # u₁ = a sin(q(y − y_c)) / (νq² + μ) is stationary, and the flow tends to it with the rate νq² + μ.
    options = {"forcing": "kolmogorov", "force": 0.2, "force_waves": 2, "drag": 0.3, "viscosity": 0.1}
    solver = create("turbulence", resolution=16, dt=1.0, substeps=4, **options)
    y = solver.grid.coordinates()[1]
    laminar = torch.stack([0.2 * (2 * (y - math.pi)).sin() / 0.7, torch.zeros_like(y)])
    stationary = advanced(solver, with_flow(solver, laminar), 3)
    torch.testing.assert_close(stationary.values["velocity"][0], laminar, rtol=0, atol=1e-14)
    from_rest = advanced(solver, with_flow(solver, torch.zeros_like(laminar)), 3)
    torch.testing.assert_close(from_rest.values["velocity"][0], laminar * (1 - math.exp(-0.7 * 3)), rtol=0, atol=1e-14)


# -------------------------------------------------------------------------------------------------- conservation


@pytest.mark.parametrize(("dim", "n"), [(2, 24), (3, 12)])
def test_without_friction_energy_and_in_2d_enstrophy_are_conserved(dim, n):
    solver = create("turbulence", resolution=n, dim=dim, viscosity=0, diffusivity=0, dt=0.1, substeps=8, scale=2.0)
    state = start = solver.initial([0, 1])
    state = advanced(solver, state, 5)
    assert relative(state.values["velocity"], start.values["velocity"]) > 0.1
    torch.testing.assert_close(
        mean(state.values["velocity"].square()), mean(start.values["velocity"].square()), rtol=1e-8, atol=0
    )
    torch.testing.assert_close(
        mean(state.values["scalar"][:, None].square()),
        mean(start.values["scalar"][:, None].square()),
        rtol=1e-8,
        atol=0,
    )
    before, after = (mean(vorticity(solver, s).square()) for s in (start, state))
    if dim == 2:
        torch.testing.assert_close(after, before, rtol=1e-8, atol=0)
    else:  # vortices are stretched
        assert float((after / before - 1).abs().max()) > 1e-2


def vorticity(solver, state):
    """∂_i u_j − ∂_j u_i for i < j, shape (batch, pair, *grid)."""
    c = solver.spectral.forward(state.values["velocity"])
    ik = solver.spectral.derivatives()
    pairs = itertools.combinations(range(solver.grid.dim), 2)
    return solver.spectral.inverse(torch.stack([ik[i] * c[:, j] - ik[j] * c[:, i] for i, j in pairs], 1))


@pytest.mark.parametrize(("dim", "n"), [(2, 24), (3, 12)])
def test_energy_decays_by_friction_alone(dim, n):
    # dE/dt = −2νZ, E = <|u|²>/2, Z = <|∇∧u|²>/2, by central differences: an error of O(Δt²).
    solver = create("turbulence", resolution=n, dim=dim, viscosity=0.03, dt=0.005, substeps=1, scale=2.0)
    states = [developed(solver, steps=10)]
    states += [solver.advance(states[0])]
    states += [solver.advance(states[1])]
    energies = [mean(s.values["velocity"].square()) / 2 for s in states]
    enstrophy = mean(vorticity(solver, states[1]).square()) / 2
    torch.testing.assert_close((energies[2] - energies[0]) / 0.01, -2 * 0.03 * enstrophy, rtol=1e-5, atol=0)


@pytest.mark.parametrize("options", [{"resolution": 24}, {"resolution": 24, **FORCED}, {"resolution": 10, "dim": 3}])
def test_divergence_is_zero_and_means_are_kept(options):
    solver = create("turbulence", scale=2.0, substeps=2, **options)
    start = solver.initial([0, 1])
    state = advanced(solver, start, 5)
    divergence = solver.spectral.divergence(solver.spectral.forward(state.values["velocity"]))
    assert float(divergence.abs().max()) < 1e-14
    for name, before in start.values.items():
        axes = tuple(range(-solver.grid.dim, 0))
        torch.testing.assert_close(state.values[name].mean(axes), before.mean(axes), rtol=0, atol=1e-15)
    noise = solver.restore(torch.randn(2, 1, solver.spec.n_blades, *solver.grid.shape))
    assert float(solver.spectral.divergence(solver.spectral.forward(noise.values["velocity"])).abs().max()) < 1e-14


# ------------------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize(("dim", "n"), [(2, 16), (3, 8)])
def test_decaying_turbulence_has_all_symmetries_of_the_grid(dim, n):
    solver = create("turbulence", dim=dim, **SMALL | {"resolution": n, "scale": 3.0})
    frames = solver.observe(developed(solver))
    assert_equivariant(lambda x: rollout(solver, x, 2), frames, solver.spec.algebra, grid=solver.grid)
    shift = (3, 1, 2)[:dim]
    axes = tuple(range(-dim, 0))
    shifted = solver.step(frames.roll(shift, axes))
    assert relative(shifted, solver.step(frames).roll(shift, axes)) < 1e-13


@pytest.mark.parametrize(("dim", "n"), [(2, 16), (3, 8)])
def test_forced_turbulence_has_them_when_the_force_turns_along(dim, n):
    options = SMALL | {"resolution": n, "scale": 3.0, "dim": dim, **FORCED, "force_range": (0.5, 1.0)}
    solver = create("turbulence", **options, **DRAWN)
    state = developed(solver)
    frames, packed = solver.observe(state), solver.spec.pack_parameters(state.parameters, 2, torch.float64)
    reference = solver.step(frames, state.parameters)
    algebra, elements = solver.spec.algebra, list(lattice_symmetries(solver.spec.algebra, solver.grid))
    for g in elements:
        out = solver.step(g.act(algebra, frames), solver.spec.unpack_parameters(g.turn(algebra, packed)))
        assert relative(out, g.act(algebra, reference)) < 1e-13
    left_behind = solver.step(elements[-1].act(algebra, frames), state.parameters)
    assert relative(left_behind, elements[-1].act(algebra, reference)) > 1e-3


# ---------------------------------------------------------------------------------------- seeds, options, frames


@pytest.mark.parametrize("options", [{**SMALL}, {**SMALL, **FORCED, "force_range": (0.1, 0.5)}])
def test_seeds_decide_every_bit_whatever_the_batch(options):
    solver = create("turbulence", **options, **DRAWN)
    together, alone = solver.initial([7, 3, 5]), solver.initial([3])
    assert relative(together.values["velocity"][0], together.values["velocity"][1]) > 0.1
    for _ in range(3):
        for group in ("values", "parameters"):
            for name, value in getattr(together, group).items():
                assert torch.equal(value[1:2], getattr(alone, group)[name])
        together, alone = solver.advance(together), solver.advance(alone)


def test_a_seed_is_one_flow_at_every_resolution():
    # Cells of the fine grid of odd ratio share centres with those of the coarse one; both resolve all waves drawn.
    coarse, fine = (create("turbulence", resolution=n, scale=2.0).initial([4]) for n in (51, 153))
    torch.testing.assert_close(fine.values["velocity"][..., 1::3, 1::3], coarse.values["velocity"], rtol=0, atol=1e-12)


CHANGES = {
    "resolution": 18,
    "size": 5.0,
    "dt": 0.07,
    "substeps": 3,
    "dim": 3,
    "viscosity": 0.01,
    "viscosity_range": (0.01, 0.02),
    "diffusivity": 0.01,
    "diffusivity_range": (0.01, 0.02),
    "speed": 0.5,
    "scale": 1.6,
    "smoothness": 3.0,
    "forcing": "none",
    "force": 0.7,
    "force_range": (0.5, 0.6),
    "force_waves": 1,
    "drag": 0.5,
}


def test_every_option_changes_the_output():
    assert set(inspect.signature(Turbulence).parameters) == set(CHANGES)
    base = {**SMALL, **FORCED}
    solver = create("turbulence", **base)
    reference = solver.observe(developed(solver, (0,), 2))
    for option, value in CHANGES.items():
        options = {**SMALL} if option == "forcing" else base
        other = create("turbulence", **{**options, option: value})
        frames = other.observe(developed(other, (0,), 2))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-8, option


def test_drawn_parameters():
    options = {"forcing": "kolmogorov", "force_waves": 1, "force_range": (0.2, 0.4), "resolution": 8, "scale": 3.0}
    solver = create("turbulence", dim=3, **options, **DRAWN)
    parameters = solver.initial(range(60)).parameters
    for name, (low, high) in {"viscosity": (0.005, 0.02), "diffusivity": (0.001, 0.01)}.items():
        assert low <= float(parameters[name].min()) < float(parameters[name].max()) <= high
    force, wave = parameters["force"], parameters["force_wave"]
    assert float((force * wave).sum(1).abs().max()) == 0
    assert 0.2 <= float(force.norm(dim=1).min()) < 0.22
    torch.testing.assert_close(wave.norm(dim=1), torch.ones(60, dtype=torch.float64))
    directions = {tuple(row) for row in torch.cat([force.sign(), wave.sign()], 1).tolist()}
    assert len(directions) == 12  # six pairs of axes, two signs
    fixed = create("turbulence", resolution=8, scale=3.0, viscosity=0.3).initial([0, 1]).parameters
    assert fixed["viscosity"].tolist() == [[0.3]] * 2


def test_initial_flow_has_the_speed_asked_for():
    solver = create("turbulence", **SMALL, speed=2.5)
    frames = solver.observe(solver.initial([0, 1]))
    assert isinstance(solver, Stepper)
    assert frames.shape == (2, 1, 4, 16, 16)
    assert frames.dtype == torch.float64
    torch.testing.assert_close(mean(frames[:, 0, 1:3].square()).sqrt(), torch.full((2,), 2.5, dtype=torch.float64))
    assert float(frames[:, :, 3].abs().max()) == 0


def test_a_rollout_through_frames_is_one_through_states():
    solver = create("turbulence", **SMALL, **DRAWN)
    state = developed(solver)
    frames = solver.observe(state)
    through = rollout(solver, frames, 5, state.parameters)
    single = rollout(solver, frames.float(), 5, state.parameters)
    state = advanced(solver, state, 5)
    assert relative(through[:, -1:], solver.observe(state)) < 1e-13
    assert single.dtype == torch.float32
    assert relative(single[:, -1:].double(), solver.observe(state)) < 1e-6


def test_viscosity_can_be_learned_from_a_step():
    solver = create("turbulence", **SMALL)
    frames = solver.observe(solver.initial([0]))
    solver.step(frames, {"viscosity": 0.01})  # the integrator that is kept must not be used again
    nu = torch.tensor([[0.01]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(solver.step(frames, {"viscosity": nu}).square().sum(), nu)
    around = [float(solver.step(frames, {"viscosity": 0.01 + h}).square().sum()) for h in (-1e-5, 1e-5)]
    assert float(slope) == pytest.approx((around[1] - around[0]) / 2e-5, rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = create("turbulence", **SMALL, **FORCED)
    state = solver.initial([0, 1])
    there = solver.advance(solver.advance(state.to("cuda"))).to("cpu")
    assert relative(there.values["velocity"], advanced(solver, state, 2).values["velocity"]) < 1e-12


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 7}, r"`resolution` \(=7\) must be a whole number of cells a side, at least 8"),
        ({"dim": 1}, r"`dim` \(=1\) must be 2 or 3: in one dimension nothing incompressible can move"),
        ({"dt": 0}, r"`dt` \(=0\) must be a finite number in s above 0"),
        ({"substeps": 0}, r"`substeps` \(=0\) must be a whole number, at least 1"),
        ({"viscosity": -1}, r"`viscosity` \(=-1\) must be a finite number in m²/s, at least 0"),
        ({"viscosity": 1, "viscosity_range": (0, 1)}, "`viscosity` .* and `viscosity_range` .* exclude each other"),
        ({"forcing": "wind"}, r"`forcing` \(='wind'\) must be 'none' or 'kolmogorov'"),
        ({"drag": 0.1}, r"`drag` \(=0.1\) has no meaning without forcing='kolmogorov'"),
        ({"force_range": (0, 1)}, r"`force_range` .* has no meaning without"),
        ({"forcing": "kolmogorov", "resolution": 8}, r"`force_waves` \(=4\) must not exceed 2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("turbulence", **options)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"viscosity": math.nan}, r"`viscosity` \(=nan m²/s\) must be finite"),
        ({"diffusivity": -1.0}, r"`diffusivity` \(=-1 m²/s\) must be finite and at least 0"),
        ({"force": (math.inf, 0)}, r"`force` \(=inf, 0 m/s²\) must be finite"),
        ({"force_wave": (0.0, 2.5)}, r"`force_wave` .* must be whole waves per side.* here m = \[\[0.0, 2.5"),
        ({"force_wave": (0.0, 6.0)}, r"`force_wave` .* with \|m\| <= 5"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    solver = create("turbulence", **SMALL, **FORCED)
    with pytest.raises(ValueError, match=message):
        solver.step(solver.observe(solver.initial([0])), parameters)


def test_a_flow_too_fast_for_the_time_step_is_refused():
    solver = create("turbulence", **SMALL, speed=30.0)
    with pytest.raises(ValueError, match=r"`substeps` \(=2\) is unstable with `dt` .* take `substeps` >= \d+\."):
        solver.advance(solver.initial([0]))


def test_an_unstable_batch_tells_which_of_its_trajectories_are():
    solver = create("turbulence", **SMALL)
    state = solver.initial([0, 1, 2])
    state.values["velocity"][1] *= 1000
    state.values["velocity"][2, 0, 3, 3] = math.nan
    with pytest.raises(UnstableError, match="`substeps`") as caught:
        solver.advance(state)
    assert caught.value.which == (1, 2)
    assert pickle.loads(pickle.dumps(caught.value)).which == (1, 2)


def test_no_trajectories_at_all():
    solver = create("turbulence", resolution=np.int64(8), scale=3.0)
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 4, 8, 8)
    assert solver.step(torch.zeros(0, 1, 4, 8, 8)).shape == (0, 1, 4, 8, 8)
