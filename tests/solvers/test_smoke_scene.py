import inspect
import itertools
import math

import pytest
import torch

from cliffsteer.solvers import create
from cliffsteer.solvers.smoke_scene import SmokeScene
from cliffsteer.symmetry import lattice_symmetries

CLOSED, LID_OFF = "no_slip", ("no_slip", ("no_slip", "open"))
DRAWN = {"buoyancy_range": (0.3, 0.9), "viscosity_range": (0.005, 0.05), "obstacle_radius_range": (4.0, 8.0)}
SCENES = {
    "closed": {"resolution": 12, **DRAWN},
    "lid off": {"resolution": 12, "boundary": LID_OFF, **DRAWN},
    "in space": {"resolution": 6, "dim": 3, "boundary": ("slip", "slip", ("no_slip", "open")), "obstacle_radius": 7.0},
}


@pytest.fixture(scope="module", params=list(SCENES))
def scene(request):
    """A solver, and its states from the initial one on."""
    solver = create("smoke_scene", **SCENES[request.param])
    states = [solver.initial([0, 1])]
    for _ in range(2):
        states.append(solver.advance(states[-1]))
    return solver, states


NAMES = {create("smoke_scene", **options).grid: name for name, options in SCENES.items()}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def gap(a, b):
    return max(float((a.values[name] - b.values[name]).abs().max()) for name in b.values)


def smoke(solver, state):
    """Of each trajectory, in cells of density 1."""
    return state.values["density"].flatten(1).sum(1)


# ------------------------------------------------------------------------------------- exact and analytic solutions


def test_a_uniform_wind_carries_smoke_through_the_box_and_out_of_it():
    # u = (0, U) between slip walls solves the equations, s(x, y − Ut) with them; clean air comes in from below.
    options = {"boundary": ("slip", "open"), "buoyancy": (0.0, 0.0), "viscosity": 0.01, "size": 12.0, "dt": 0.5}
    solver = create("smoke_scene", resolution=12, **options)
    state = solver.initial([0, 1])
    wind = [torch.full_like(face, 4.0 * axis) for axis, face in enumerate(solver.faces(state))]
    start = solver.with_values(state, state.values["density"], wind)
    end = solver.advance(solver.advance(start))  # four cells on
    density = torch.zeros_like(start.values["density"])
    density[..., 4:] = start.values["density"][..., :-4]
    assert gap(end, solver.with_values(start, density, wind)) < 1e-9


def test_without_an_obstacle_it_is_the_native_solver():
    options = {"resolution": 12, "dt": 1.0}
    native = create("smoke", **options)
    solver = create("smoke_scene", **options, obstacle_radius_range=(4.0, 6.0), tolerance=1e-12)
    state = solver.initial([3, 4])
    state.parameters["obstacle_radius"][0] = 0.0  # one trajectory with, one without
    state = solver.restore(solver.observe(solver.with_values(state, native.initial([3, 4]).values["density"],
                           solver.faces(state))), state.parameters)  # fmt: skip
    expected = native.initial([3])
    for _ in range(2):
        state, expected = solver.advance(state), native.advance(expected)
        for name, value in expected.values.items():
            assert float((state.values[name][:1] - value).abs().max()) < 1e-10
    closed = create("smoke_scene", **options)
    assert (closed.spec, closed.grid) == (native.spec, native.grid)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", [CLOSED, LID_OFF], ids=str)
def test_smoke_around_an_obstacle_converges(boundary):
    fields = []
    for n in (32, 64, 128):
        options = {"buoyancy": (0.2, 0.4), "obstacle": (2.0, 1.0), "obstacle_radius": 5.0}
        solver = create("smoke_scene", resolution=n, dt=12 / n, boundary=boundary, tolerance=1e-6, **options)
        state = solver.initial([0])
        for _ in range(n // 4):
            state = solver.advance(state)
        fields.append(torch.nn.functional.avg_pool2d(solver.observe(state)[0, :, :3], n // 32))
    gaps = [float((a - b).norm() / fields[-1].norm()) for a, b in itertools.pairwise(fields)]
    order = math.log2(gaps[0] / gaps[1])
    assert 0.7 < order < 1.4, (gaps, order)  # obstacles are made of whole cells


# ---------------------------------------------------------------------------------------------- what is conserved


def test_nothing_flows_through_walls_and_obstacles(scene):
    solver, states = scene
    solid = solver.scene.solid(*(states[0].parameters[name] for name in ("obstacle", "obstacle_radius")))
    assert bool((solid.flatten(1).sum(1) > 4).all())
    for state in states[1:]:
        faces = solver.faces(state)
        assert float(solver.scene.divergence(faces).abs().max()) < 1e-8
        for face, passable in zip(faces, solver.scene.passable(solid), strict=True):
            assert float(face[~passable].abs().max()) == 0
            assert float(face.abs().max()) > 0.1
        assert float(state.values["density"][solid].abs().max()) == 0


def test_as_much_flows_up_as_down(scene):
    # Walls on the other sides: no volume passes any level on balance, not even that of an open lid.
    solver, states = scene
    rise = solver.scene.pad(solver.faces(states[-1]))[-1]
    across = tuple(range(1, rise.ndim - 1))
    assert float(rise.abs().sum(across).amax(1).min()) > 1
    assert float(rise.sum(across).abs().max()) < 1e-7
    lid = float(rise[..., -1].abs().max())
    assert lid > 0.1 if solver.scene.open[-1][1] else lid == 0


def test_smoke_makes_no_new_extremes_and_leaves_by_the_open_side_alone(scene):
    solver, states = scene
    highest = states[0].values["density"].flatten(1).amax(1)
    for state in states[1:]:
        density = state.values["density"].flatten(1)
        assert bool((density.amax(1) <= highest).all())
        assert float(density.min()) >= 0
    if solver.scene.open[-1][1]:
        return
    ratio = smoke(solver, states[-1]) / smoke(solver, states[0])
    assert bool(((ratio > 0.9) & (ratio < 1.05)).all()), ratio  # semi-Lagrangian advection conserves nearly


def test_the_box_loses_what_leaves_by_the_lid():
    solver = create("smoke_scene", resolution=8, size=8.0, boundary=("slip", "open"), buoyancy=(0.0, 0.0), dt=0.5)
    state = solver.initial([0, 1])
    wind = [torch.full_like(face, float(axis)) for axis, face in enumerate(solver.faces(state))]
    start = solver.with_values(state, state.values["density"], wind)
    through = start.values["density"][..., -1].sum(1) * 0.5  # of cells 1 m high, at 1 m/s for half a second
    lost = smoke(solver, start) - smoke(solver, solver.advance(start))
    torch.testing.assert_close(lost, through, rtol=1e-12, atol=0)


# ------------------------------------------------------------------------------------------------------ symmetry


def test_mirrored_and_turned_scenes_go_on_alike_with_their_buoyancy(scene):
    # All symmetries of the grid in one batch, each with its own parameters; the last once more, parameters left behind.
    solver, states = scene
    frames, parameters = solver.observe(states[-1])[:1], {k: v[:1] for k, v in states[-1].parameters.items()}
    algebra, elements = solver.spec.algebra, list(lattice_symmetries(solver.spec.algebra, solver.grid))
    assert len(elements) == {"closed": 8, "lid off": 2, "in space": 8}[NAMES[solver.grid]]
    packed = solver.spec.pack_parameters(parameters, 1, torch.float64)
    turned = [g.turn(algebra, packed) for g in elements]
    batch = torch.cat([frames, *(g.act(algebra, frames) for g in (*elements, elements[-1]))])
    out = solver.step(batch, solver.spec.unpack_parameters(torch.cat([packed, *turned, packed])))
    for found, g in zip(out[1:-1], elements, strict=True):
        assert relative(found, g.act(algebra, out[:1])[0]) < 1e-8
    assert relative(out[-1], out[-2]) > 1e-2


# ---------------------------------------------------------------------------------------- frames, seeds, options


def test_frames_show_the_obstacle_and_lead_back_to_the_state(scene):
    solver, states = scene
    frames = solver.observe(states[-1])
    fields = solver.spec.unpack(frames)
    assert (float(fields["solid"].min()), float(fields["solid"].max())) == (0, 1)
    assert torch.equal(solver.spec.unpack(solver.observe(states[0]))["solid"], fields["solid"])
    assert gap(solver.restore(frames, states[-1].parameters), states[-1]) < 1e-8


def test_every_parameter_changes_the_step_of_its_own_trajectory():
    solver = create("smoke_scene", resolution=10, boundary=LID_OFF, obstacle=(0.0, 2.0), obstacle_radius=6.0)
    state = solver.advance(solver.initial([0]))
    frames = solver.observe(state).expand(6, -1, -1, -1, -1)
    values = {name: value.repeat(6, 1) for name, value in state.parameters.items()}
    values["buoyancy"][1] = torch.tensor([0.1, 0.4])
    values["viscosity"][2] = 0.2
    values["obstacle"][3] = torch.tensor([1.0, 2.0])
    values["obstacle_radius"][4] = 7.0
    out = solver.step(frames, values)
    for changed in range(1, 5):
        assert relative(out[changed], out[0]) > 1e-4, changed
    torch.testing.assert_close(out[5], out[0], rtol=0, atol=1e-9)


CHANGES = {
    "boundary": LID_OFF,
    "obstacle": (3.0, -2.0),
    "obstacle_radius": 7.0,
    "obstacle_radius_range": (6.0, 7.0),
}


def test_every_option_changes_the_output():
    assert set(inspect.signature(SmokeScene).parameters) == {*CHANGES, "options"}
    base = {"resolution": 8, "obstacle_radius": 5.0, "tolerance": 1e-6}
    solver = create("smoke_scene", **base)
    start = solver.initial([0])
    reference, later = solver.observe(start), solver.observe(solver.advance(start))
    for option, value in CHANGES.items():
        options = {
            key: other for key, other in base.items() if option != "obstacle_radius_range" or "radius" not in key
        }
        other = create("smoke_scene", **options | {option: value})
        state = other.initial([0])
        if option == "boundary":  # at rest all sides look alike
            assert relative(other.observe(other.advance(state)), later) > 1e-3
        else:
            assert relative(other.observe(state), reference) > 1e-3, option


def test_places_and_radii_are_drawn_by_the_seed_inside_the_box():
    solver = create("smoke_scene", resolution=16, obstacle_radius_range=(3.0, 6.0))
    state = solver.initial(range(100))
    center, radius = state.parameters["obstacle"], state.parameters["obstacle_radius"]
    assert 3 <= float(radius.min()) < 3.2 < 5.8 < float(radius.max()) <= 6
    assert float((center.abs() + radius).max()) <= 12 + 1e-12  # an eighth of 32 m off the sides
    assert float(center.mean(0).abs().max()) < 1
    alone = solver.initial([7])
    assert torch.equal(alone.parameters["obstacle"], center[7:8])
    assert torch.equal(alone.values["density"], state.values["density"][7:8])
    plain = create("smoke", resolution=16).initial([7])
    outside = alone.values["density"] > 0
    assert torch.equal(alone.values["density"][outside], plain.values["density"][outside])
    assert torch.equal(alone.parameters["buoyancy"], plain.parameters["buoyancy"])


def test_no_trajectories_at_all():
    solver = create("smoke_scene", resolution=8, boundary=LID_OFF, obstacle=(0.0, 0.0), obstacle_radius=6.0)
    shape = (0, 1, solver.spec.n_blades, 8, 8)
    assert solver.observe(solver.advance(solver.initial([]))).shape == shape
    assert solver.step(torch.zeros(shape)).shape == shape


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"boundary": "periodic"},
            r"`boundary` on axis 0 \(=\('periodic', 'periodic'\)\) must be of the kinds no_slip",
        ),
        ({"boundary": ("no_slip", ("open", "conductor"))}, r"`boundary` on axis 1 .* must be of the kinds"),
        ({"boundary": "opened"}, "'opened'"),
        ({"obstacle": (1.0, 2.0)}, r"`obstacle` \(=\(1.0, 2.0\)\) has no meaning without `obstacle_radius`"),
        ({"obstacle": (1.0,), "obstacle_radius": 4.0}, r"`obstacle` \(=\(1.0,\)\) must have 2 components, in m"),
        ({"obstacle": "left", "obstacle_radius": 4.0}, r"`obstacle` \(='left'\) must have 2 components"),
        ({"obstacle_radius": 1.0}, r"`obstacle_radius` \(=1 m\) must be 0 or at least one cell, 2 m"),
        ({"obstacle_radius": -4.0}, r"`obstacle_radius` \(=-4.0\) must be a finite number in m, at least 0"),
        ({"obstacle_radius": 12.5}, r"`obstacle_radius` \(=12.5 m\) leaves no room .* must not exceed 12 m"),
        ({"obstacle_radius": 4.0, "obstacle_radius_range": (4, 5)}, "exclude each other: give one"),
        ({"obstacle_radius_range": (5, 4)}, r"`obstacle_radius_range` \(=\(5, 4\)\) must be a pair"),
        ({"obstacle_radius_range": (1, 4)}, r"`obstacle_radius_range` \(=1\) must be a finite number, at least 2"),
        ({"obstacle": (9.0, 0.0), "obstacle_radius": 6.0}, r"`obstacle` \(=\(9, 0\) m\) .* must stay one cell \(2 m\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("smoke_scene", resolution=16, **options)


def test_bad_input_is_refused():
    solver = create("smoke_scene", resolution=8, obstacle=(0.0, 0.0), obstacle_radius=6.0)
    frames = solver.observe(solver.initial([0]))
    with pytest.raises(ValueError, match=r"`obstacle_radius` \(=1 m\) must be 0 or at least one cell, 4 m"):
        solver.step(frames, {"obstacle_radius": 1.0})
    with pytest.raises(ValueError, match=r"`obstacle` \(=\(20, 0\) m\) with `obstacle_radius` .* must stay one cell"):
        solver.step(frames, {"obstacle": (20.0, 0.0)})
    with pytest.raises(ValueError, match=r"`obstacle` \(=nan, 0 m\) must be finite"):
        solver.step(frames, {"obstacle": (math.nan, 0.0)})
    with pytest.raises(ValueError, match=r"`viscosity` \(=9 m²/s\) is unstable"):
        solver.step(frames, {"viscosity": 9.0})
    frames[0, 0, 1, 3, 3] = math.inf
    with pytest.raises(ValueError, match="`frames` holds NaN or infinite values in trajectory 0"):
        solver.step(frames)
