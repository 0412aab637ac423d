import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from cliffsteer.datasets import Recipe, TrajectoryDataset, generate
from cliffsteer.solvers import State, create
from cliffsteer.solvers.maxwell_spacetime import MaxwellSpacetime, _nodes
from cliffsteer.stepper import Stepper
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import check_solver

NAMES = {2: "maxwell2d", 3: "maxwell_spacetime"}
SMALL = {"resolution": 8, "width": 0.12}


def small(axes, **options):
    return create(NAMES[axes], **SMALL | options)


def first(solver, seeds=(0,)):
    return solver.observe(solver.initial(seeds))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def with_values(state, **changes):
    return State({**state.values, **changes}, state.parameters)


def derivative(solver, values, axis):
    """∂ along an axis of space by Fourier, exact for what the grid's waves are; Nyquist's has none."""
    n, h = solver.grid.shape[1], solver.grid.spacing[1]
    waves = torch.fft.fftfreq(n, h, dtype=torch.float64) * 2j * math.pi
    waves[n // 2] = 0
    place = values.ndim - solver.dimension + axis
    spectrum = torch.fft.fft(values, dim=place) * waves.view(-1, *[1] * (values.ndim - 1 - place))
    return torch.fft.ifft(spectrum, dim=place).real


def split(solver, field):
    """E_i and the full antisymmetric cB_ij of fields (batch, component, ...)."""
    space = range(solver.dimension)
    zero = torch.zeros_like(field[:, 0])
    b = [[zero for _ in space] for _ in space]
    for n, (i, j) in enumerate(itertools.combinations(space, 2)):
        b[i][j], b[j][i] = field[:, solver.dimension + n], -field[:, solver.dimension + n]
    return [field[:, i] for i in space], b


def instants(solver, state):
    return [state.values["time"] + offset for offset in solver.offsets]


# ------------------------------------------------------------------------------------------- Maxwell's equations


@pytest.mark.parametrize("axes", [2, 3])
def test_gauss_and_no_monopoles_hold_exactly(axes):
    solver = small(axes)
    state = solver.advance(solver.initial([0, 1]))
    e, b = split(solver, state.values["field"])
    density = torch.stack([solver.sources(state, time)[:, 0] for time in instants(solver, state)], 1)
    divergence = sum(derivative(solver, e[i], i) for i in range(axes))
    assert relative(divergence, density) < 1e-12
    assert float(density.flatten(2).sum(2).abs().max()) < 1e-10 * float(density.abs().max())
    for i, j, k in itertools.combinations(range(axes), 3):
        flux = [derivative(solver, b[p][q], r) for p, q, r in ((i, j, k), (j, k, i), (k, i, j))]
        assert sum(flux).norm() < 1e-12 * flux[0].norm()


@pytest.mark.parametrize("axes", [2, 3])
def test_ampere_and_faraday_hold_to_the_order_of_the_difference_in_time(axes):
    # ∂ₜ by central differences from points half a cell apart and less: what is left is their error, of order 2.
    errors = {"ampere": [], "faraday": []}
    for courant in (0.1, 0.05):
        solver = small(axes, courant=courant, block=3)
        state = solver.initial([0, 1])
        field = state.values["field"]
        slope = (field[:, :, 2] - field[:, :, 0]) / (2 * solver.grid.spacing[0])
        (e, b), (e_slope, b_slope) = split(solver, field[:, :, 1]), split(solver, slope)
        current = solver.sources(state, instants(solver, state)[1])[:, 1:]
        space = range(axes)
        ampere = [e_slope[i] - sum(derivative(solver, b[i][j], j) for j in space) + current[:, i] for i in space]
        faraday = [
            b_slope[i][j] + derivative(solver, e[j], i) - derivative(solver, e[i], j)
            for i, j in itertools.combinations(space, 2)
        ]
        for name, law in (("ampere", ampere), ("faraday", faraday)):
            errors[name].append(float(torch.stack(law).norm() / slope.norm()))
    for name, found in errors.items():
        assert found[0] < 0.05
        assert 1.9 < math.log2(found[0] / found[1]) < 2.1, (name, found)


@pytest.mark.parametrize("axes", [2, 3])
def test_charge_is_conserved(axes):
    solver = small(axes)
    state = solver.initial([0])
    time, step = state.values["time"] + 0.3, 1e-5
    slope = (solver.sources(state, time + step) - solver.sources(state, time - step))[:, 0] / (2 * step)
    current = solver.sources(state, time)[:, 1:]
    flow = sum(derivative(solver, current[:, i], i) for i in range(axes))
    assert relative(flow, -slope) < 1e-7


@pytest.mark.parametrize("axes", [2, 3])
def test_the_energy_that_fields_gain_is_the_work_of_the_charges(axes):
    # d/dt ∫ (E² + c²B²)/2 = −∫ J·E, the work in each cell by Simpson's rule
    solver = small(axes, courant=0.1, block=33)
    state = solver.initial([3])
    field = state.values["field"]
    energy = field.square().flatten(3).sum((1, 3))[0] / 2
    work = torch.stack(
        [
            (solver.sources(state, time)[:, 1:] * field[:, :axes, n]).sum()
            for n, time in enumerate(instants(solver, state))
        ]
    )
    step = solver.grid.spacing[0]
    simpson = step / 3 * (work[0] + 4 * work[1:-1:2].sum() + 2 * work[2:-1:2].sum() + work[-1])
    assert float(energy[-1] - energy[0]) == pytest.approx(-float(simpson), rel=1e-5)
    assert abs(float(simpson)) > 1e-3 * float(energy[0])


# ----------------------------------------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("axes", [2, 3])
def test_charges_at_rest_keep_a_static_field(axes):
    solver = small(axes, drift=0.0)
    state = solver.initial([0])
    still = {name: 0 * state.values[name] for name in ("cosine", "sine")}
    state = solver.start(with_values(state, **still))
    field = state.values["field"]
    assert field[:, axes:].norm() < 1e-14 * field.norm()
    state = solver.advance(solver.advance(state))
    assert relative(state.values["field"], field) < 1e-13
    assert relative(field, field[:, :, :1].expand_as(field)) < 1e-13


@pytest.mark.parametrize("axes", [2, 3])
def test_fields_of_straight_charges_move_with_them(axes):
    # In a block light crosses the box once, charges of half its speed cross half of it.
    solver = small(axes)
    state = solver.initial([1])
    drift = torch.zeros_like(state.values["drift"])
    drift[:, 0] = 0.5
    straight = {name: 0 * state.values[name] for name in ("cosine", "sine")}
    state = solver.start(with_values(state, drift=drift, **straight))
    later = solver.advance(state)
    assert relative(later.values["field"], state.values["field"].roll(4, 3)) < 1e-12
    assert relative(later.values["field"], state.values["field"]) > 0.1
    assert later.values["field"][:, axes].abs().max() > 0.01


@pytest.mark.parametrize("axes", [2, 3])
def test_a_plane_wave_travels_with_the_speed_of_light(axes):
    solver = small(axes, courant=0.7)
    state = solver.initial([0])
    x = solver.grid.coordinates()[1:, 0]
    k = 2 * math.pi * torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)[:axes]
    side = torch.tensor([-1.0, 2.0, 0.0], dtype=torch.float64)[:axes]
    phase, shape = torch.tensordot(k, x, 1), (-1, *[1] * axes)

    def coefficients(field):  # of the wave A = side cos(k·x − |k| t)
        spectrum = torch.fft.rfftn(side.view(shape) * field, dim=tuple(range(-axes, 0)), norm="forward")
        return torch.view_as_real(spectrum[None])

    empty = with_values(
        state,
        charge=0 * state.values["charge"],
        potential=coefficients(phase.cos()),
        rate=coefficients(k.norm() * phase.sin()),
    )
    out = solver.advance(empty)
    wave = torch.sin(phase - k.norm() * solver.offsets.view(shape))
    e, b = split(solver, out.values["field"])
    for i in range(axes):
        expected = -side[i] * k.norm() * wave  # E = −Ȧ
        assert float((e[i][0] - expected).abs().max()) < 1e-11
        for j in range(axes):
            expected = -(k[i] * side[j] - k[j] * side[i]) * wave  # cB = ∂ ∧ A
            assert float((b[i][j][0] - expected).abs().max()) < 1e-11
    energy = out.values["field"].square().flatten(3).sum((1, 3))
    assert relative(energy, energy[:, :1].expand_as(energy)) < 1e-13


@pytest.mark.parametrize("axes", [2, 3])
def test_the_time_step_changes_nothing(axes):
    # The points of the coarser block are every third one of the finer: both are exact.
    coarse, fine = small(axes, courant=1.5, block=4), small(axes, courant=0.5, block=12)
    states = [solver.advance(solver.initial([0])) for solver in (coarse, fine)]
    assert relative(states[1].values["field"][:, :, 1::3], states[0].values["field"]) < 1e-13
    assert relative(states[1].values["potential"], states[0].values["potential"]) < 1e-13


def test_quadrature_is_exact_to_rounding():
    for angle in (0.01, 1.0, 9.0, 30.0):
        points, weights = np.polynomial.legendre.leggauss(_nodes(angle))
        found = (weights * np.exp(0.5j * angle * (points + 1))).sum() / 2
        assert abs(found - (np.exp(1j * angle) - 1) / (1j * angle)) < 1e-14
    assert _nodes(30.0) > _nodes(9.0) > _nodes(0.01)


@pytest.mark.parametrize("axes", [2, 3])
def test_converges_faster_than_any_order_in_space(axes):
    # Centres of cells are those of every third of cells a third as large; clouds are smooth.
    numbers = (4, 8, 12) if axes == 3 else (8, 12, 16)
    errors = []
    for n in numbers:
        coarse, fine = (create(NAMES[axes], resolution=m, width=0.1, courant=0.25 * m / n, block=2) for m in (n, 3 * n))
        every = (..., *[slice(1, None, 3)] * axes)
        errors.append(relative(*(s.initial([0]).values["field"][at] for s, at in ((coarse, ...), (fine, every)))))
    orders = [
        math.log(a / b) / math.log(n / m)
        for (a, b), (m, n) in zip(itertools.pairwise(errors), itertools.pairwise(numbers), strict=True)
    ]
    assert orders[1] > orders[0] > 2
    assert orders[1] > 6
    assert errors[-1] < 1e-3


# ------------------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize("axes", [2, 3])
def test_turning_the_charges_turns_the_field(axes):
    solver = small(axes, resolution=6, block=2)
    algebra, state = solver.spec.algebra, solver.initial([2])
    frames = solver.observe(solver.advance(state))
    elements = [g for g in lattice_symmetries(algebra, solver.grid) if g.signs[0] > 0]
    assert len(elements) == {2: 8, 3: 48}[axes]
    for g in elements:
        turn = g.matrix[1:, 1:]
        turned = {name: turn @ state.values[name] for name in ("drift", "cosine", "sine")}
        turned["origin"] = turn @ (state.values["origin"] - 0.5) + 0.5
        there = solver.advance(solver.start(with_values(state, **turned)))
        assert relative(solver.observe(there), g.act(algebra, frames)) < 1e-12
    assert relative(elements[-1].act(algebra, frames), frames) > 0.1


def test_moving_the_charges_moves_the_field():
    solver = small(2)
    state = solver.initial([4])
    shift = torch.tensor([2.0, -11.0], dtype=torch.float64).view(1, 2, 1) / 8  # of whole cells, and around the box
    there = solver.start(with_values(state, origin=state.values["origin"] + shift))
    assert relative(there.values["field"], state.values["field"].roll((2, -11), (3, 4))) < 1e-12


# -------------------------------------------------------------------------------- frames, seeds, options, storage


@pytest.mark.parametrize("axes", [2, 3])
def test_frames_are_blocks_of_spacetime(axes):
    solver = small(axes)
    assert isinstance(solver, Stepper)
    assert solver.spec.algebra.signature == (1, *[-1] * axes)
    assert solver.grid.shape == (8,) * (1 + axes)
    assert set(solver.grid.spacing) == {1 / 8}
    assert (solver.dt, solver.time_unit, solver.history) == (1.0, "m/c", 1)
    frames = first(solver, [0, 1])
    assert frames.shape == (2, 1, 2 ** (1 + axes), *solver.grid.shape)
    assert frames.dtype == torch.float64
    assert torch.equal(frames.flatten(3).abs().sum((0, 1, 3)) > 0, solver.spec.occupied)


def test_blocks_follow_each_other():
    long, short = small(2, block=12), small(2, block=4)
    state, parts = short.initial([3]), []
    for _ in range(3):
        parts.append(short.observe(state))
        state = short.advance(state)
    assert relative(torch.cat(parts, 3), first(long, [3])) < 1e-12


def test_charges_drawn():
    values = small(2, pairs=3, speed=0.7, drift=0.2, radius=0.1).initial(range(40)).values
    charge = values["charge"]
    assert not charge.sum(1).any()
    assert set(charge.abs().flatten().tolist()) == {1.0, 2.0, 3.0}
    assert torch.allclose(values["drift"].norm(dim=1), torch.tensor(0.2, dtype=torch.float64))
    assert torch.equal(values["drift"], values["drift"][..., :1].expand_as(values["drift"]))
    a, b = values["cosine"].movedim(1, 2), values["sine"].movedim(1, 2)
    turn = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    orbits = turn.abs() > 1e-9
    assert 0.3 < float(orbits.to(torch.float64).mean()) < 0.7
    assert 0.3 < float((turn[orbits] > 0).to(torch.float64).mean()) < 0.7
    radius = a[orbits].norm(dim=-1)
    assert 0.05 <= float(radius.min()) < 0.052 < 0.098 < float(radius.max()) <= 0.1
    speed = (values["omega"][orbits] * radius).abs()
    assert 0.35 <= float(speed.min()) < 0.37 < 0.68 < float(speed.max()) <= 0.7


@pytest.mark.parametrize("axes", [2, 3])
def test_seeds_decide_everything_whatever_the_batch(axes):
    solver = small(axes, block=3)
    together, again, alone = (solver.advance(solver.initial(seeds)) for seeds in ([7, 3], [7, 3], [3]))
    for name, value in together.values.items():
        assert torch.equal(value, again.values[name])
    assert relative(together.values["field"][1:], alone.values["field"]) < 1e-13
    assert relative(together.values["field"][1:], together.values["field"][:1]) > 0.1
    none = solver.observe(solver.advance(solver.initial([])))
    assert none.shape == (0, 1, 2 ** (1 + axes), *solver.grid.shape)


CHANGES = {
    "resolution": 6,
    "size": 1.1,
    "block": 4,
    "courant": 0.5,
    "pairs": 3,
    "width": 0.1,
    "radius": 0.05,
    "speed": 0.4,
    "drift": 0.0,
}


@pytest.mark.parametrize("axes", [2, 3])
def test_every_option_changes_the_output(axes):
    assert set(inspect.signature(MaxwellSpacetime).parameters) == set(CHANGES)
    reference = first(small(axes))
    for option, value in CHANGES.items():
        frames = first(small(axes, **{option: value}))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-3, option


def test_stored_as_float32(tmp_path):
    options = {**SMALL, "block": 3}
    recipe = Recipe("maxwell2d", options, {"train": 2, "valid": 1, "test": 1}, frames=2, batch=2)
    generate(recipe, tmp_path / "data", progress=False)
    stored = TrajectoryDataset(tmp_path / "data", "train")
    solver = small(2, block=3)
    frames = solver.observe(solver.advance(solver.initial(stored.seeds)))
    assert stored.read(1).shape == (2, 8, 3, 8, 8)
    assert torch.equal(stored.read(1)[1], frames[1, 0].float())
    assert stored.grid == solver.grid
    stored.close()


@pytest.mark.parametrize("axes", [2, 3])
def test_keeps_the_contract_of_a_solver(axes):
    check_solver(small(axes, block=2), restores=False)


def test_frames_cannot_be_restored():
    solver = small(2)
    with pytest.raises(ValueError, match="`frames` of solver 'maxwell2d' show the field but not the charges"):
        solver.step(first(solver))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = small(2)
    state = solver.initial([0, 1])
    there = solver.advance(state.to("cuda")).values["field"].cpu()
    assert relative(there, solver.advance(state).values["field"]) < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 3}, r"`resolution` \(=3\) must be a whole number of cells a side, at least 4"),
        ({"block": 0.5}, r"`block` \(=0.5\) must be a whole number of points in time, at least 1"),
        ({"size": -1}, r"`size` \(=-1\) must be a finite number in m above 0"),
        ({"courant": 0}, r"`courant` \(=0\) must be a finite number above 0"),
        ({"courant": 1e4}, r"`courant` \(=10000\) must not exceed 64, as a step costs in proportion to it"),
        ({"pairs": 0}, r"`pairs` \(=0\) must be a whole number, at least 1"),
        ({"width": 0}, r"`width` \(=0\) must be a finite number in m above 0"),
        ({"radius": "wide"}, r"`radius` \(='wide'\) must be a finite number in m above 0"),
        ({"speed": 0.9}, r"`speed` \(=0.9\) and `drift` \(=0.1\) must be below 1, .* taken together"),
        ({"drift": -0.1}, r"`drift` \(=-0.1\) must be a finite number in c, at least 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("maxwell2d", **options)
