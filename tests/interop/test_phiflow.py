import warnings

import pytest
import torch

with warnings.catch_warnings():  # PhiFlow's imports use deprecated numpy names
    warnings.simplefilter("ignore")
    from phi import math
    from phi.field import CenteredGrid, PointCloud, StaggeredGrid
    from phi.geom import Box, Point
    from phi.math import batch, dual, extrapolation, spatial
    from phi.torch import TORCH

from cliffsteer import Field, FieldSpec, Grid, rollout
from cliffsteer.coupling import Alternate
from cliffsteer.interop.phiflow import PhiFlowStep, boundary_kinds
from cliffsteer.solvers import create

N = 12
DOMAIN = {"x": N, "y": N, "bounds": Box(x=32.0, y=32.0)}
BATCH = batch(b=2, c=3)


@pytest.fixture(params=[64, 32])
def precision(request):
    with math.precision(request.param):
        yield {64: torch.float64, 32: torch.float32}[request.param]


@pytest.fixture
def solver():
    return create("smoke", resolution=N)


@pytest.fixture
def state(solver):
    state = solver.initial(range(6))
    for _ in range(3):
        state = solver.advance(state)
    return state


def wrap(values, *dims, shape=BATCH, numpy=False):
    grid = [spatial(**{axis: n}) for axis, n in zip("xy", values.shape[-2:], strict=True)]
    native = values.numpy() if numpy else values
    return math.reshaped_tensor(native, [shape, *dims, *grid], convert=False)


def phi_fields(solver, state, dtype, staggered=True, numpy=False):
    faces = [wrap(f.to(dtype), numpy=numpy) for f in solver.faces(state)]
    v = StaggeredGrid(math.stack(dict(zip("xy", faces, strict=True)), dual("vector")), 0, **DOMAIN)
    s = CenteredGrid(wrap(state.values["density"].to(dtype), numpy=numpy), extrapolation.BOUNDARY, **DOMAIN)
    return (v if staggered else v.at_centers()), s


def to_frame(v, s):
    velocity = v.at_centers() if v.is_staggered else v
    velocity = torch.as_tensor(velocity.values.native([BATCH, "vector", "x", "y"]))
    density = torch.as_tensor(math.expand(s.values, BATCH).native([BATCH, "x", "y"]))
    zero = torch.zeros_like(density)
    return torch.stack([density, *velocity.unbind(1), zero], 1)[:, None]


class History:
    """u₃ = u₂ + ½ (u₂ − u₁), from two frames."""

    history = 2

    def __init__(self, like):
        self.spec, self.grid, self.dt = like.spec, like.grid, like.dt

    def step(self, frames, parameters=None):
        return frames[:, -1:] + 0.5 * (frames[:, -1:] - frames[:, -2:-1])


class Blur:
    """Predicts a velocity with divergence, and lets density feel it."""

    history = 1

    def __init__(self, like):
        self.spec, self.grid, self.dt = like.spec, like.grid, like.dt

    def step(self, frames, parameters=None):
        density, x, y, zero = frames[:, -1:].unbind(2)
        return torch.stack([density + x, x + 0.1 * density, y - 0.2 * x.roll(1, -1), zero], 2)


# ------------------------------------------------------------------------------------------------- the same rollout


@pytest.mark.parametrize("staggered", [True, False])
@pytest.mark.parametrize("cycle", [False, True])
def test_a_loop_in_phiflow_is_the_rollout_of_the_stepper(solver, state, precision, staggered, cycle):
    stepper = Alternate(solver, solver, 1, 2) if cycle else solver
    parameters = {"buoyancy": (0.1, 0.4), "viscosity": 0.02}
    step = PhiFlowStep(stepper, **parameters)
    v, s = phi_fields(solver, state, precision, staggered)
    start = to_frame(v, s)
    for _ in range(5):
        v, s = step(v, s)
    expected = rollout(stepper, start, 5, parameters)[:, -1:]
    assert v.is_staggered == staggered
    assert to_frame(v, s).dtype == precision
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[precision]
    assert float((to_frame(v, s) - expected).abs().max()) < tolerance


def test_fields_keep_geometry_boundary_and_backend(solver, state):
    step = PhiFlowStep(solver)
    for numpy in (False, True):
        step.reset()
        v, s = phi_fields(solver, state, torch.float32, numpy=numpy)
        v2, s2 = step(v, s)
        assert (v2.boundary, s2.boundary) == (v.boundary, s.boundary)
        assert v2.bounds == v.bounds
        assert v2.values.default_backend.name == s2.values.default_backend.name == ("numpy" if numpy else "torch")
        assert set(v2.shape.batch.names) == {"b", "c"}


def test_float64_fields_keep_their_precision_where_phiflow_has_less(solver, state):
    with math.precision(64):
        fields = phi_fields(solver, state, torch.float64)
    with math.precision(32):
        velocity, density = PhiFlowStep(solver)(*fields)
    later = solver.advance(state)
    with math.precision(64):
        found = [velocity.values[{"~vector": axis}].native([BATCH, "x", "y"]) for axis in "xy"]
        found.append(density.values.native([BATCH, "x", "y"]))
    expected = [*solver.faces(later), later.values["density"]]
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-12


@pytest.mark.parametrize("divergence_free", [True, False])
def test_a_field_that_comes_back_unchanged_is_not_averaged_again(solver, state, divergence_free):
    with math.precision(64):
        step = PhiFlowStep(Blur(solver), divergence_free=divergence_free)
        v, s = phi_fields(solver, state, torch.float64)
        start = to_frame(v, s)
        for _ in range(4):
            v, s = step(v, s)
        ours = PhiFlowStep(Blur(solver), divergence_free=divergence_free)(
            *phi_fields(solver, solver.restore(rollout(Blur(solver), start, 3)), torch.float64)
        )
        expected = rollout(Blur(solver), start, 4)[:, -1:]
        assert float((s.values.native([BATCH, "x", "y"]) - expected[:, 0, 0]).abs().max()) < 1e-12
        assert float((to_frame(*ours) - to_frame(v, s)).abs().max()) > 1e-4


def test_staggered_velocity_comes_back_without_divergence(solver, state):
    with math.precision(64):
        v, s = phi_fields(solver, state, torch.float64)
        v, _ = PhiFlowStep(solver)(v, s)
        faces = [v.values[{"~vector": axis}].native([BATCH, "x", "y"]) for axis in "xy"]
        expected = solver.faces(solver.advance(state))
        assert float(solver.mac.divergence(faces).abs().max()) < 1e-12
        assert max(float((a - b).abs().max()) for a, b in zip(faces, expected, strict=True)) < 1e-12
        plain, _ = PhiFlowStep(solver, divergence_free=False)(*phi_fields(solver, state, torch.float64))
        faces = [plain.values[{"~vector": axis}].native([BATCH, "x", "y"]) for axis in "xy"]
        assert float(solver.mac.divergence(faces).abs().max()) > 1e-3


def test_batches_are_united_and_may_be_absent(solver, state):
    with math.precision(64):
        v, _s = phi_fields(solver, state, torch.float64)
        one = CenteredGrid(wrap(state.values["density"][:1], shape=math.EMPTY_SHAPE), extrapolation.BOUNDARY, **DOMAIN)
        _v2, s2 = PhiFlowStep(solver)(v, one)
        assert set(s2.shape.batch.names) == {"b", "c"}
        density = state.values["density"][:1].expand(6, -1, -1)
        expected = solver.advance(solver.with_values(state, density, solver.faces(state))).values["density"]
        assert float((s2.values.native([BATCH, "x", "y"]) - expected).abs().max()) < 1e-12
        rest = StaggeredGrid(0.0, 0, **DOMAIN)
        v3, s3 = PhiFlowStep(solver)(rest, one)
        assert not s3.shape.batch
        assert not v3.shape.batch
        assert float(abs(v3.at_centers().values).max) > 0.1


def test_what_the_script_changes_between_steps_is_seen(solver, state):
    with math.precision(64):
        step = PhiFlowStep(solver)
        v, s = phi_fields(solver, state, torch.float64)
        frames = to_frame(v, s)
        for _ in range(3):
            v, s = step(v, s)
            s = s * 0.5 + 0.1
            frames = solver.step(frames)
            frames[:, :, 0] = frames[:, :, 0] * 0.5 + 0.1
        assert float((to_frame(v, s) - frames).abs().max()) < 1e-12
        v, s = step(v * 2.0, s)
        frames[:, :, 1:3] *= 2
        assert float((to_frame(v, s) - solver.step(frames)).abs().max()) < 1e-11


def test_a_change_drops_the_frames_predicted_ahead(solver, state):
    with math.precision(64):
        cycle = Alternate(solver, solver, 1, 2)
        step = PhiFlowStep(cycle)
        v, s = step(*phi_fields(solver, state, torch.float64))
        changed = s + 0.3
        frame = to_frame(v, changed)
        v, s = step(v, changed)
        assert float((to_frame(v, s) - cycle.step(frame)[:, :1]).abs().max()) < 1e-12


# ---------------------------------------------------------------------------------------------------------- history


def test_history_is_filled_by_the_scripts_own_step(solver, state):
    with math.precision(64):
        own = PhiFlowStep(solver)
        step = PhiFlowStep(History(solver), warm_up=own)
        v, s = phi_fields(solver, state, torch.float64)
        frames = to_frame(v, s)
        frames = torch.cat([frames, solver.step(frames)], 1)
        for _ in range(3):
            v, s = step(v, s)
        expected = rollout(History(solver), frames, 2)[:, -1:]
        assert float((to_frame(v, s) - expected).abs().max()) < 1e-12


def test_without_warm_up_the_oldest_frame_is_repeated_and_reset_forgets(solver, state):
    with math.precision(64):
        step = PhiFlowStep(History(solver))
        start = phi_fields(solver, state, torch.float64)
        v, s = step(*start)
        assert float((to_frame(v, s) - to_frame(*start)).abs().max()) < 1e-13
        v, s = step(v, s * 2.0)
        changed = to_frame(v, s)
        frames = to_frame(*start)
        assert float((changed[:, :, 0] - 2.5 * frames[:, :, 0]).abs().max()) < 1e-12
        step.reset()
        v, s = step(*start)
        assert float((to_frame(v, s) - frames).abs().max()) < 1e-13


# ----------------------------------------------------------------------------------------------- boundaries, errors


def test_boundary_kinds():
    slip = extrapolation.combine_by_direction(0, extrapolation.BOUNDARY)
    cases = {
        "no_slip": 0,
        "periodic": extrapolation.PERIODIC,
        "open": extrapolation.BOUNDARY,
        "slip": slip,
        "constant 1.0": 1.0,
    }
    for kind, boundary in cases.items():
        assert boundary_kinds(StaggeredGrid(0.0, boundary, **DOMAIN)) == ((kind, kind),) * 2
    mixed = extrapolation.combine_sides(x=extrapolation.PERIODIC, y=(0, extrapolation.BOUNDARY))
    assert boundary_kinds(CenteredGrid((0, 0), mixed, **DOMAIN)) == (("periodic",) * 2, ("no_slip", "open"))


class Shift:
    """Everything moves one cell along the first axis."""

    history = 1

    def __init__(self, boundary):
        self.spec = FieldSpec((1, 1), [Field("velocity", 1, "m/s")])
        self.grid, self.dt = Grid((N, N + 1), (1.0, 0.5), boundary), 1.0

    def step(self, frames, parameters=None):
        return frames[:, -1:].roll(1, 3)


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_other_boundaries_and_a_single_field(boundary):
    phi_boundary = {"periodic": extrapolation.PERIODIC, "open": extrapolation.BOUNDARY}[boundary]
    step = PhiFlowStep(Shift(boundary))
    domain = {"x": N, "y": N + 1, "bounds": Box(x=float(N), y=(N + 1) / 2)}
    with TORCH, math.precision(64):
        node = torch.randn(N, N + 1, dtype=torch.float64)
        u = ((node.roll(-1, 1) - node) / 0.5)[None], (-(node.roll(-1, 0) - node) / 1.0)[None]
        if boundary == "open":
            u = torch.nn.functional.pad(u[0], [0, 0, 0, 1]), torch.nn.functional.pad(u[1], [0, 1])
        faces = {axis: wrap(f, shape=math.EMPTY_SHAPE) for axis, f in zip("xy", u, strict=True)}
        v = StaggeredGrid(math.stack(faces, dual("vector")), phi_boundary, **domain)
        out = step(v)
        assert out.boundary == v.boundary
        before, after = (f.at_centers().values.native("vector,x,y") for f in (v, out))
        if boundary == "periodic":
            assert float((after - before.roll(1, 1)).abs().max()) < 1e-12
        else:
            inner = out.values[{"~vector": "x"}].native("x,y")[1:-1]
            expected = before.roll(1, 1)[0]
            assert float((inner - (expected[1:] + expected[:-1]) / 2).abs().max()) < 1e-12


def test_fields_that_do_not_match_are_refused(solver):
    step = PhiFlowStep(solver)
    v, s = StaggeredGrid(0.0, 0, **DOMAIN), CenteredGrid(0.0, extrapolation.BOUNDARY, **DOMAIN)
    smaller = {**DOMAIN, "bounds": Box(x=30.0, y=32.0)}
    cases = [
        ((v,), r"1 field\(s\) given, expected 2: velocity, density"),
        ((s, v), "`velocity` must be a vector field"),
        ((v, v), "`density` must be a scalar field"),
        ((1.0, s), r"`velocity` \(a float\) must be a PhiFlow CenteredGrid or StaggeredGrid"),
        ((PointCloud(Point(math.vec(x=1.0, y=2.0))), s), r"`velocity` \(a Field\) must be a PhiFlow CenteredGrid"),
        ((StaggeredGrid(0.0, 0, x=8, y=8, z=8), s), r"`velocity` has 3 dimension\(s\), the stepper 2"),
        ((v, CenteredGrid(0.0, 0, x=12, y=8)), r"`density` has resolution \(12, 8\), the stepper \(12, 12\)"),
        ((v, CenteredGrid(0.0, 0, **smaller)), r"`density` covers \(30.0, 32.0\), the stepper \(32.0, 32.0\)"),
        (
            (StaggeredGrid(0.0, extrapolation.BOUNDARY, **DOMAIN), s),
            "`velocity` has the boundary open, open, the stepper no_slip, no_slip",
        ),
        ((v, CenteredGrid(0.0, extrapolation.PERIODIC, **DOMAIN)), "`density` and the stepper must be periodic along"),
    ]
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            step(*fields)
    step(v, s)
    with pytest.raises(ValueError, match=r"the fields have a batch of 2, those before had 1: call reset\(\)"):
        step(v, s * math.ones(batch(b=2)))


def test_steppers_that_do_not_fit_are_refused(solver):
    with pytest.raises(ValueError, match=r"`fields` \(=\('velocity', 'smoke'\)\) must name each dynamic field"):
        PhiFlowStep(solver, fields=("velocity", "smoke"))
    with pytest.raises(ValueError, match="`parameters` has no field 'gravity'"):
        PhiFlowStep(solver, gravity=(0, 1))
    shift = Shift("periodic")
    shift.spec = FieldSpec((1, 1), [Field("vorticity", 2, "1/s")])
    with pytest.raises(ValueError, match="has the field 'vorticity' of grade > 1"):
        PhiFlowStep(shift)
    with pytest.raises(ValueError, match="`stepper` has the field 'solid', which tells where an obstacle is"):
        PhiFlowStep(create("smoke_scene", resolution=8, obstacle_radius=6.0))


def test_fields_can_be_given_in_another_order(solver, state):
    with math.precision(64):
        v, s = phi_fields(solver, state, torch.float64)
        s2, v2 = PhiFlowStep(solver, fields=("density", "velocity"))(s, v)
        v1, s1 = PhiFlowStep(solver)(v, s)
        assert float((to_frame(v1, s1) - to_frame(v2, s2)).abs().max()) == 0


def test_each_trajectory_may_have_its_own_parameters(solver, state):
    buoyancy = torch.randn(6, 2, dtype=torch.float64)
    with math.precision(64):
        v, s = phi_fields(solver, state, torch.float64)
        frame = to_frame(*PhiFlowStep(solver, buoyancy=buoyancy)(v, s))
    expected = solver.step(solver.observe(state), {"buoyancy": buoyancy})
    assert torch.allclose(frame.reshape(expected.shape), expected, atol=1e-6)
