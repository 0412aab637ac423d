import inspect
import math
import warnings

import pytest
import torch
from torch.nn.functional import avg_pool2d

from cliffsteer.datasets import Recipe, TrajectoryDataset, generate
from cliffsteer.solvers import State, create
from cliffsteer.solvers.charges import HarmonicMotion
from cliffsteer.solvers.lienard_wiechert import bivector, retarded
from cliffsteer.solvers.maxwell_charges import UNIT_FIELD, MaxwellCharges
from cliffsteer.stepper import Stepper
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import check_solver

SMALL = {"resolution": 8, "oversampling": 2, "block": 3}
SI = 1e-9  # nm
LIGHT = 299792458.0


def small(**options):
    return create("maxwell_charges", **SMALL | options)


def first(solver, seeds=(0,)):
    return solver.observe(solver.initial(seeds))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def speeds(state):
    """The largest speed of each charge, shape (batch, charge)."""
    motion, times = HarmonicMotion.of_values(state.values), torch.linspace(0, 400, 2000, dtype=torch.float64)
    velocity = motion(times)[1]
    return sum(v.square() for v in velocity).sqrt().amax(-1)


# ------------------------------------------------------------------------------------------------------- frames


def test_frames_are_blocks_of_spacetime():
    solver = create("maxwell_charges", resolution=8)
    assert isinstance(solver, Stepper)
    assert solver.spec.algebra.signature == (1, -1, -1)
    assert solver.grid.shape == (8, 8, 8)
    assert solver.grid.spacing == (12.5, 12.5, 12.5)  # c Δt = Δx
    assert solver.dt == 100.0
    assert (solver.time_unit, solver.history) == ("nm/c", 1)
    frames = first(solver, [0, 1])
    assert frames.shape == (2, 1, 8, 8, 8, 8)
    assert frames.dtype == torch.float64
    assert torch.equal(frames.flatten(3).abs().sum((0, 1, 3)) > 0, solver.spec.occupied)


def test_blocks_follow_each_other():
    long, short = small(block=6), small(block=2)
    state, parts = short.initial([3]), []
    for _ in range(3):
        parts.append(short.observe(state))
        state = short.advance(state)
    assert relative(torch.cat(parts, 3), first(long, [3])) < 1e-12
    assert relative(parts[1], parts[0]) > 0.1


def test_frames_average_the_normalised_field_over_the_points_of_a_cell():
    solver, raw = small(), small(normalization="none")
    state = solver.initial([1])
    field = solver.field(state, 0, torch.tensor(1.5 * 12.5, dtype=torch.float64))
    size = (field[0] ** 2 + field[1] ** 2 - field[2] ** 2).abs().sqrt()
    assert float(size.min()) < solver.floor < float(size.max())
    expected = avg_pool2d(field * size.log10() / size.clamp(min=1e7), 2)
    assert relative(solver.observe(state)[0, 0, 4:7, 1], expected) < 1e-13
    assert relative(raw.observe(state)[0, 0, 4:7, 1], avg_pool2d(field, 2)) < 1e-13
    assert raw.spec["faraday"].unit == "V/m"


def test_a_charge_at_rest_in_volts_per_metre():
    solver = small(normalization="none", oversampling=1, oscillating=(0, 0), orbiting=(1, 1))
    state = solver.initial([0])
    for name in ("drift", "cosine", "sine"):
        state.values[name].zero_()
    state.values["charge"].fill_(2.0)
    away = (solver.points - state.values["origin"][0, :, 0, None, None]) * SI
    coulomb = 2 * 8.9875517862e9 * 1.602176634e-19 * away / away.norm(dim=0) ** 3
    frames = solver.observe(state)[0, 0]
    assert relative(frames[4:6], coulomb[:, None].expand(2, 3, 8, 8)) < 1e-10
    assert frames[6].norm() < 1e-14 * frames.norm()


# ------------------------------------------------------------------------------------------------------- recipe


def test_the_recipe():
    solver = create("maxwell_charges", resolution=8)
    values = solver.initial(range(60)).values
    present, orbits = values["charge"] != 0, values["orbits"] > 0
    assert not (orbits & ~present).any()
    assert set(orbits.sum(1).tolist()) == {5, 6, 7}
    assert set((present & ~orbits).sum(1).tolist()) == {3, 4}
    assert set(values["charge"].flatten().tolist()) == {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    assert float(values["origin"].abs().max()) <= 15
    for origin, there in zip(values["origin"], present, strict=True):
        apart = torch.pdist(origin[:, there].T.contiguous())
        assert 5 <= float(apart.min()) < 12
    radius = values["cosine"].norm(dim=1)
    for kind, low, high, slowest in ((orbits, 1.25, 2.5, 0.75), (present & ~orbits, 1.0, 2.0, 0.67)):
        found = radius[kind]
        assert low <= float(found.min()) < low * 1.05 < high * 0.95 < float(found.max()) <= high
        fastest = 0.6 * 0.5 / high
        assert slowest * fastest <= float(values["omega"][kind].min())
        assert float(values["omega"][kind].max()) <= fastest
    assert float(values["drift"].norm(dim=1)[present].min()) > 0.0199
    assert float(values["drift"].norm(dim=1).max()) < 0.1001
    assert 0.3 < float(speeds(State(values, {})).max()) < 0.4
    assert 0.75 < float(speeds(create("maxwell_charges", speed=0.999).initial(range(20))).max()) < 0.8


def test_phases_are_zero_unless_they_are_drawn():
    values = small().initial(range(8)).values
    orbits = values["orbits"] > 0
    assert not values["sine"].movedim(1, 2)[~orbits].any()
    across = values["sine"].movedim(1, 2)[orbits]
    assert bool((across[:, 0] == 0).all())
    assert bool((across[:, 1] > 0).all())
    drawn = small(random_phases=True).initial(range(8)).values
    a, b = drawn["cosine"].movedim(1, 2), drawn["sine"].movedim(1, 2)
    turn = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])[orbits]
    assert 0.3 < float((turn > 0).to(torch.float64).mean()) < 0.7
    before, after = (v["cosine"].square() + v["sine"].square() for v in (values, drawn))
    assert torch.allclose(before.sum(1), after.sum(1), rtol=1e-12)
    same = ("charge", "origin", "drift", "omega", "orbits")
    assert all(torch.equal(values[name], drawn[name]) for name in same)


# ---------------------------------------------------------------------------------------------- published faults


def test_published_faults():
    sound, faulty = small(normalization="none"), small(normalization="none", published_faults=True)
    assert [float(end) for end in faulty.points[0].aminmax()] == pytest.approx([-50, 50], rel=1e-14)
    assert create("maxwell_charges", published_faults=True).grid.spacing[0] == pytest.approx(0.7848548, rel=1e-6)
    grid = create("maxwell_charges", published_faults=True).grid
    assert grid.spacing[0] / grid.spacing[1] == pytest.approx(0.2502, abs=1e-4)
    assert small(published_faults=True, courant=0.5).grid.spacing[0] == pytest.approx(100 / 15)
    state, there = sound.initial([0]), faulty.initial([0])
    assert float(there.values["time"]) == -faulty.grid.spacing[0] / 2  # the first point is at t = 0
    orbits = state.values["orbits"][0] > 0
    assert not there.values["origin"][0][:, orbits].any()
    assert torch.equal(there.values["origin"][0][:, ~orbits], state.values["origin"][0][:, ~orbits])

    # with sound origins in their place, oscillating charges alone have a field of their own
    time = torch.tensor(7.0, dtype=torch.float64)
    mixed = State({**there.values, "origin": state.values["origin"]}, {})
    found = faulty.field(mixed, 0, time).flatten(1)
    motion, points = HarmonicMotion.of_values({k: v[0] for k, v in state.values.items()}), faulty.points.flatten(1)
    source = retarded(motion, time.expand(points.shape[1]), points)
    charge = state.values["charge"][0] * UNIT_FIELD
    parts = []
    for kind, sign in ((orbits, 1.0), (~orbits, -1.0)):
        drift = motion.drift.unsqueeze(-1)
        velocity = tuple(v - d + sign * d for v, d in zip(source.velocity, drift, strict=True))
        wrong = type(source)(source.delay, source.distance, source.separation, velocity, source.acceleration)
        parts.append(bivector(charge * kind, wrong))
    assert relative(found, sum(parts)) < 1e-12
    assert relative(found, bivector(charge, source)) > 1e-3


# ------------------------------------------------------------------------------------------- agreement with PyCharge


def pycharge():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        return pytest.importorskip("pycharge", reason="needs pycharge==1.1.0")


def charges_in_pycharge(pc, state, faults):
    """The charges of a state, written for PyCharge in SI units, sound or as published."""

    class Mover(pc.Charge):
        def __init__(self, q, origin, drift, cosine, sine, omega, stated):
            super().__init__(q)
            self.o, self.v, self.a, self.b, self.w, self.stated = origin, drift, cosine, sine, omega, stated

        def _part(self, i, t, order):
            a, b, w = self.a[i], self.b[i], self.w
            if order == 0:
                return self.o[i] + self.v[i] * t + a * cos(w * t) + b * sin(w * t)
            if order == 1:
                return self.stated[i] - a * w * sin(w * t) + b * w * cos(w * t)
            return -(w**2) * (a * cos(w * t) + b * sin(w * t))

        def xpos(self, t):
            return self._part(0, t, 0)

        def ypos(self, t):
            return self._part(1, t, 0)

        def zpos(self, t):
            return 0.0 * t

        def xvel(self, t):
            return self._part(0, t, 1)

        def yvel(self, t):
            return self._part(1, t, 1)

        def zvel(self, t):
            return 0.0 * t

        def xacc(self, t):
            return self._part(0, t, 2)

        def yacc(self, t):
            return self._part(1, t, 2)

        def zacc(self, t):
            return 0.0 * t

    from numpy import cos, sin

    v = {name: value[0].numpy() for name, value in state.values.items() if name != "time"}
    charges = []
    for n in range(len(v["charge"])):
        if v["charge"][n]:
            drift = v["drift"][:, n] * LIGHT
            stated = -drift if faults and not v["orbits"][n] else drift
            lengths = (v[name][:, n] * SI for name in ("cosine", "sine"))
            omega = v["omega"][n] * LIGHT / SI
            q = v["charge"][n] * 1.602176634e-19
            charges.append(Mover(q, v["origin"][:, n] * SI, drift, *lengths, omega, stated))
    return charges


@pytest.mark.parametrize("faults", [False, True])
def test_agrees_with_pycharge(faults):
    pc = pycharge()
    solver = small(normalization="none", published_faults=faults, block=2)
    state = solver.initial([5])
    simulation = pc.Simulation(charges_in_pycharge(pc, state, faults))
    x, y = (axis[..., None].numpy() * SI for axis in solver.points)
    found = solver.observe(state)[0, 0, 4:7]
    for j in range(2):
        time = state.values["time"][0] + solver.offsets[j]
        seconds = float(time) * SI / LIGHT
        ex, ey, _ = simulation.calculate_E(seconds, x, y, 0 * x)
        bz = simulation.calculate_B(seconds, x, y, 0 * x)[2] * LIGHT
        expected = torch.stack([torch.from_numpy(component[..., 0]) for component in (ex, ey, bz)])
        assert relative(solver.field(state, 0, time), expected) < 1e-9
        assert relative(found[:, j], avg_pool2d(expected, 2)) < 1e-9


# ------------------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize("normalization", ["log", "none"])
def test_turning_the_charges_turns_the_field(normalization):
    solver = small(normalization=normalization)
    algebra, state = solver.spec.algebra, solver.initial([2])
    frames = solver.observe(state)
    elements = [g for g in lattice_symmetries(algebra, solver.grid) if g.signs[0] > 0]
    assert len(elements) == 8
    for g in elements:
        turn = g.matrix[1:, 1:]
        turned = {name: turn @ state.values[name] for name in ("origin", "drift", "cosine", "sine")}
        assert relative(solver.observe(State({**state.values, **turned}, {})), g.act(algebra, frames)) < 1e-10
    assert relative(elements[-1].act(algebra, frames), frames) > 0.1


# ---------------------------------------------------------------------------------------- seeds, options, storage


def test_seeds_decide_everything_whatever_the_batch():
    solver = small()
    together, again, alone = solver.initial([7, 3]), solver.initial([7, 3]), solver.initial([3])
    for name, value in together.values.items():
        assert torch.equal(value, again.values[name])
        assert torch.equal(value[1:], alone.values[name])
    frames = solver.observe(together)
    assert torch.equal(frames, solver.observe(again))
    assert torch.equal(frames[1:], solver.observe(alone))
    assert relative(frames[:1], frames[1:]) > 0.1
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 8, 3, 8, 8)


CHANGES = {
    "resolution": 6,
    "oversampling": 3,
    "size": 90.0,
    "block": 2,
    "courant": 0.5,
    "oscillating": (2, 2),
    "orbiting": (1, 2),
    "speed": 0.6,
    "random_phases": True,
    "normalization": "none",
    "floor": 1e8,
    "published_faults": True,
}


def test_every_option_changes_the_output():
    assert set(inspect.signature(MaxwellCharges).parameters) == set(CHANGES)
    reference = first(small())
    for option, value in CHANGES.items():
        frames = first(small(**{option: value}))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-3, option


def test_stored_as_float32(tmp_path):
    recipe = Recipe("maxwell_charges", SMALL, {"train": 2, "valid": 1, "test": 1}, frames=3, batch=2)
    generate(recipe, tmp_path / "data", progress=False)
    stored = TrajectoryDataset(tmp_path / "data", "train")
    frames = stored.read(1)
    assert frames.dtype == torch.float32
    assert frames.shape == (3, 8, 3, 8, 8)
    assert (stored.dt, stored.grid) == (37.5, small().grid)
    solver = small()
    state = solver.advance(solver.initial([stored.seeds[1]]))
    assert torch.equal(frames[1], solver.observe(state)[0, 0].float())
    stored.close()


def test_keeps_the_contract_of_a_solver():
    check_solver(small(), restores=False)


def test_frames_cannot_be_restored():
    solver = small()
    with pytest.raises(ValueError, match="`frames` of solver 'maxwell_charges' show the field but not the charges"):
        solver.step(first(solver))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = small()
    state = solver.initial([0, 1])
    assert relative(solver.observe(state.to("cuda")).cpu(), solver.observe(state)) < 1e-12


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, r"`resolution` \(=0\) must be a whole number of cells a side, at least 1"),
        ({"oversampling": 1.5}, r"`oversampling` \(=1.5\) must be a whole number, at least 1"),
        ({"size": 0}, r"`size` \(=0\) must be a finite number in nm above 0"),
        ({"block": 0}, r"`block` \(=0\) must be a whole number of points in time, at least 1"),
        ({"courant": math.inf}, r"`courant` \(=inf\) must be a finite number above 0"),
        ({"oscillating": (2, 1)}, r"`oscillating` \(=\(2, 1\)\) must be a pair of whole numbers"),
        ({"orbiting": (1, 1.5)}, r"`orbiting` \(=\(1, 1.5\)\) must be a pair of whole numbers"),
        ({"oscillating": (0, 0), "orbiting": (0, 9)}, "make 0 to 9 charges: there must be at least one"),
        ({"orbiting": (1, 30)}, "make 4 to 34 charges: .* at most 20 have room"),
        ({"speed": 1.0}, r"`speed` \(=1.0\) must be below 1, the speed of light"),
        ({"normalization": "max"}, r"`normalization` \(='max'\) must be 'log' or 'none'"),
        ({"published_faults": "no"}, r"`published_faults` \(='no'\) must be true or false"),
        ({"floor": 0.5}, r"`floor` \(=0.5\) must be a finite number in V/m, at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("maxwell_charges", **options)
