import inspect
import math

import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import create
from cliffsteer.solvers.maxwell3d_yee import Maxwell3dYee
from cliffsteer.stepper import Stepper
from cliffsteer.testing import assert_equivariant

BODIES = {"balls": 1, "blocks": 1}
SHEETS = {"count": 3}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def advanced(solver, seeds=(0, 1), steps=3, state=None):
    state = solver.initial(seeds) if state is None else state
    for _ in range(steps):
        state = solver.advance(state)
    return state


def difference(a, b):
    return max(float((a.values[n] - b.values[n]).abs().max()) for n in a.values if a.values[n].numel())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"boundary": "conductor"},
        {"downsample": 2, "substeps": 2},
        {"boundary": ("conductor", "periodic", "periodic")},
    ],
    ids=str,
)
def test_equivariant_under_all_symmetries_of_the_grid(options):
    # From frames to frames, exactly: the cells' centre is the centre of edges and faces, and restoring the staggered
    # fields from their averages favours no direction.
    solver = create("maxwell3d_yee", resolution=6, dt=0.05, inclusions=BODIES, conductivity=0.001, **options)
    frames = torch.rand(2, 1, 8, 6, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    frames[:, :, 1:] -= 1.5  # only permittivity has to be positive
    assert_equivariant(solver.step, frames, solver.spec.algebra, grid=solver.grid)


# ---------------------------------------------------------------------------------------- seeds, options, frames


@pytest.mark.parametrize("options", [{"resolution": 9}, {"resolution": 8, "boundary": "conductor"}], ids=str)
def test_a_rollout_through_frames_is_one_through_states(options):
    solver = create("maxwell3d_yee", dt=0.05, inclusions=BODIES, permeability_range=(1, 2), **options)
    state = advanced(solver)
    frames = solver.observe(state)
    assert isinstance(solver, Stepper)
    assert frames.shape[2] == 8
    restored = solver.restore(frames, state.parameters)
    assert max(relative(restored.values[n], state.values[n]) for n in ("electric_e1", "magnetic_e23")) < 1e-12
    through = rollout(solver, frames, 6, state.parameters)
    in_float32 = rollout(solver, frames.float(), 6, state.parameters)
    later = solver.observe(advanced(solver, steps=6, state=state))
    assert relative(through[:, -1:], later) < 1e-12
    assert relative(in_float32[:, -1:].double(), later) < 1e-5


def test_even_periodic_grids_hide_a_checkerboard_of_the_edges():
    solver = create("maxwell3d_yee", resolution=16, dt=0.03, inclusions=BODIES)
    state = advanced(solver, steps=10)
    through = rollout(solver, solver.observe(state), 6, state.parameters)
    gap = relative(through[:, -1:], solver.observe(advanced(solver, steps=6, state=state)))
    assert 1e-6 < gap < 0.03


def test_noise_on_frames_hardly_grows():
    for boundary in ("periodic", "conductor"):
        solver = create("maxwell3d_yee", resolution=16, dt=0.03, boundary=boundary)
        state = advanced(solver)
        frames = solver.observe(state)
        noise = 0.01 * frames.std() * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)).double()
        noisy = rollout(solver, frames + noise * (frames != 0), 8, state.parameters)
        assert relative(noisy, rollout(solver, frames, 8, state.parameters)) < 0.03


def test_frames_of_blocks_are_averages_of_the_fine_frames():
    fine = create("maxwell3d_yee", resolution=16, dt=0.03, inclusions=BODIES)
    coarse = create("maxwell3d_yee", resolution=8, downsample=2, dt=0.03, inclusions=BODIES)
    a, b = advanced(fine), advanced(coarse)
    assert difference(a, b) == 0
    expected = torch.nn.functional.avg_pool3d(fine.observe(a).flatten(0, 1), 2).unflatten(0, (2, 1))
    torch.testing.assert_close(coarse.observe(b), expected, rtol=0, atol=1e-14)


def test_substeps_are_steps():
    once = create("maxwell3d_yee", resolution=8, dt=0.06, substeps=2, sources=SHEETS, conductivity=0.001)
    twice = create("maxwell3d_yee", resolution=8, dt=0.03, sources=SHEETS, conductivity=0.001)
    assert difference(advanced(once, steps=3), advanced(twice, steps=6)) < 1e-14


def test_a_homogeneous_medium_is_a_parameter_and_bodies_are_a_field():
    plain, filled = (
        create("maxwell3d_yee", resolution=8, dt=0.05),
        create("maxwell3d_yee", resolution=8, dt=0.05, inclusions=BODIES),
    )
    assert plain.spec["permittivity"].role == "parameter"
    assert filled.spec["permittivity"].role == "dynamic"
    state = plain.initial([0, 1])
    frames = plain.observe(state)
    parameters = {"permittivity": [[2.0], [3.0]]}
    expected = plain.step(frames, parameters)
    frames[0, 0, 0], frames[1, 0, 0] = 2.0, 3.0
    out = filled.step(frames)
    torch.testing.assert_close(out[:, :, 1:], expected[:, :, 1:], rtol=0, atol=1e-14)
    assert torch.equal(out[:, :, 0], frames[:, :, 0])


def test_seeds_decide_everything_whatever_the_batch():
    options = {"inclusions": BODIES, "sources": SHEETS, "permeability_range": (1, 2), "conductivity_range": (0, 0.01)}
    solver = create("maxwell3d_yee", resolution=8, dt=0.05, **options)
    together, again, alone = solver.initial([7, 3]), solver.initial([7, 3]), solver.initial([3])
    for _ in range(3):
        for group in ("values", "parameters"):
            for name, value in getattr(together, group).items():
                assert torch.equal(value, getattr(again, group)[name])
                torch.testing.assert_close(value[1:], getattr(alone, group)[name], rtol=0, atol=1e-14)
        together, again, alone = (solver.advance(s) for s in (together, again, alone))
    assert all(float((v[0] - v[1]).abs().max()) > 0 for n, v in together.values.items() if n != "time")


CHANGES = {
    "resolution": 9,
    "size": 1.5,
    "dt": 0.03,
    "substeps": 2,
    "downsample": 2,
    "boundary": "conductor",
    "permittivity": 2.0,
    "permittivity_range": (2.0, 3.0),
    "permeability": 2.0,
    "permeability_range": (2.0, 3.0),
    "conductivity": 0.01,
    "conductivity_range": (0.01, 0.02),
    "inclusions": {"balls": 1},
    "sources": {"count": 1},
    "amplitude": 2.0,
    "scale": 0.3,
    "smoothness": 1.0,
}
OF_INCLUSIONS = {"blocks": 2, "balls": 2, "size": (0.6, 0.7), "permittivity": (4.0, 5.0)}
OF_SOURCES = {"count": 2, "size": (0.5, 0.6), "thickness": 0.1, "wavelength": (0.2, 0.25), "amplitude": (2, 3),
              "cycles": 3}  # fmt: skip


def test_every_option_changes_the_output():
    assert set(inspect.signature(Maxwell3dYee).parameters) == set(CHANGES)
    base = {"resolution": 8, "dt": 0.04}

    def shown(**options):
        solver = create("maxwell3d_yee", **base | options)
        return solver.observe(advanced(solver, steps=4))

    reference = shown()
    for option, value in CHANGES.items():
        frames = shown(**{option: value}, **({"dt": 0.03} if option in ("resolution", "downsample") else {}))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-4, option
    for group, changes in (("inclusions", OF_INCLUSIONS), ("sources", OF_SOURCES)):
        start = {"blocks": 1, "balls": 1} if group == "inclusions" else {"count": 1}
        reference = shown(**{group: start})
        for key, value in changes.items():
            assert relative(shown(**{group: start | {key: value}}), reference) > 1e-4, (group, key)


def test_every_parameter_changes_the_output():
    solver = create("maxwell3d_yee", resolution=8, dt=0.05)
    frames = solver.observe(solver.initial([0, 1]))
    reference = solver.step(frames)
    for change in ({"permittivity": 2.0}, {"permeability": 1.1}, {"conductivity": 0.01}):
        assert relative(solver.step(frames, change), reference) > 1e-3
    each = solver.step(frames, {"permeability": torch.tensor([[1.0], [2.0]])})
    assert relative(each[:1], reference[:1]) < 1e-14
    assert relative(each[1:], reference[1:]) > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.05}, r"`dt` \(=0.05 m/c\) in 1 substep\(s\) is unstable where εμ = 1 on cells of 0.0312 m: .* = 2.77"
         r" must not exceed 1; take `substeps` >= 3 or `dt` <= 0.018"),
        ({"permittivity_range": (0.5, 1)}, "is unstable where εμ = 0.5 "),
        ({"inclusions": {"balls": 1, "permittivity": (0.5, 2)}}, "is unstable where εμ = 0.5 "),
        ({"boundary": "slip"}, r"`boundary` on axis 0 .* must be 'periodic' or 'conductor' on both sides"),
        ({"substeps": 0}, r"`substeps` \(=0\) must be a whole number, at least 1"),
        ({"amplitude": -1}, r"`amplitude` \(=-1\) must be a finite number in V/m, at least 0"),
        ({"sources": {"counts": 1}}, r"`sources.counts` is no option: .* Did you mean 'count'"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("maxwell3d_yee", **options)


def test_bad_input_of_a_step_is_refused():
    solver = create("maxwell3d_yee", resolution=8, dt=0.06, inclusions=BODIES)
    frames = solver.observe(solver.initial([0, 1]))
    thin, negative, broken = frames.clone(), frames.clone(), frames.clone()
    thin[1, 0, 0] = 0.5
    with pytest.raises(ValueError, match=r"is unstable where εμ = 0\.5 on"):
        solver.step(thin)
    with pytest.raises(ValueError, match=r"`permeability` \(=0\) must be finite and above 0"):
        solver.step(frames, {"permeability": 0.0})
    negative[1, 0, 0, 2, 3, 4] = -1
    with pytest.raises(ValueError, match=r"`permittivity` .* must be finite and above 0: so it is not in trajectory 1"):
        solver.step(negative)
    broken[1, 0, 1, 3, 3] = math.nan
    with pytest.raises(ValueError, match="`frames` holds NaN or infinite values in trajectory 1 of the batch"):
        solver.step(broken)


@pytest.mark.parametrize("options", [{}, {"inclusions": BODIES, "sources": SHEETS, "conductivity": 0.01}], ids=str)
def test_no_trajectories_at_all(options):
    solver = create("maxwell3d_yee", resolution=8, dt=0.05, **options)
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 8, 8, 8, 8)
    assert solver.step(torch.zeros(0, 1, 8, 8, 8, 8)).shape == (0, 1, 8, 8, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = create("maxwell3d_yee", resolution=8, dt=0.05, inclusions=BODIES, sources=SHEETS)
    state = solver.initial([0, 1])
    there = solver.observe(solver.advance(state.to("cuda"))).cpu()
    assert relative(there, solver.observe(solver.advance(state))) < 1e-12
