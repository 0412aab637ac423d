import cmath
import inspect
import math

import numpy as np
import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import create
from cliffsteer.solvers.maxwell import IMPEDANCE
from cliffsteer.solvers.maxwell3d import Maxwell3d
from cliffsteer.stepper import Stepper
from cliffsteer.testing import assert_equivariant

BOX = {"resolution": (8, 7, 6), "size": (1.0, 1.4, 0.9)}
RANGES = {"permittivity_range": (1, 3), "permeability_range": (1, 2), "conductivity_range": (0, 0.01)}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def advanced(solver, seeds=(0, 1), steps=3):
    state = solver.initial(seeds)
    for _ in range(steps):
        state = solver.advance(state)
    return state


def plane_wave(solver, waves, amplitude, time, eps=1.0, mu=1.0, sigma=0.0):
    """A damped plane wave, E = Re a exp(i(k·x − wt)), cB = Re k∧a/w exp(i(k·x − wt)), εμ w² + iμZ₀σ w = k²."""
    k = [2 * math.pi * m / length for m, length in zip(waves, solver.grid.extent, strict=True)]
    square = sum(x * x for x in k)
    loss = 1j * IMPEDANCE * sigma / (2 * eps)
    w = -loss + cmath.sqrt(loss * loss + square / (eps * mu))
    x = solver.grid.coordinates()
    phase = torch.exp(1j * (sum(a * b for a, b in zip(k, x, strict=True)) - w * time))
    electric = torch.stack([a * phase for a in amplitude]).real
    bivector = [k[i] * amplitude[j] - k[j] * amplitude[i] for i, j in ((0, 1), (0, 2), (1, 2))]
    magnetic = torch.stack([b / w * phase for b in bivector]).real
    return solver.spec.pack({"electric": electric[None, None], "magnetic": magnetic[None, None]})


# --------------------------------------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("medium", [(1.0, 1.0, 0.0), (2.5, 1.3, 0.0), (2.0, 1.0, 0.004), (1.0, 1.5, 0.2)], ids=str)
@pytest.mark.parametrize("waves", [(1, 0, 0), (2, -1, 0), (-3, 2, 1)], ids=str)
def test_plane_waves_are_exact(waves, medium):
    # The last medium overdamps the longest wave: it decays without swinging.
    solver = create("maxwell3d", **BOX, dt=0.37)
    k = torch.tensor([m / length for m, length in zip(waves, solver.grid.extent, strict=True)], dtype=torch.float64)
    amplitude = torch.linalg.cross(k, torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64)).tolist()
    parameters = dict(zip(("permittivity", "permeability", "conductivity"), medium, strict=True))
    found = rollout(solver, plane_wave(solver, waves, amplitude, 0.0, *medium), 3, parameters)
    for step in range(3):
        expected = plane_wave(solver, waves, amplitude, 0.37 * (step + 1), *medium)
        assert relative(found[:, step : step + 1], expected) < 1e-12


def test_uniform_fields_decay_or_stay():
    solver = create("maxwell3d", **BOX, dt=0.5, conductivity=0.003, permittivity=2.0)
    shape = (1, 1, 3, *solver.grid.shape)
    uniform = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(1, 1, 3, 1, 1, 1).expand(shape)
    frames = solver.spec.unpack(solver.step(solver.spec.pack({"electric": uniform, "magnetic": 2 * uniform})))
    assert relative(frames["electric"], uniform * math.exp(-IMPEDANCE * 0.003 * 0.5 / 2)) < 1e-14
    assert relative(frames["magnetic"], 2 * uniform) < 1e-14


@pytest.mark.parametrize("sigma", [0.0, 0.01, 1.0])
def test_two_half_steps_are_one(sigma):
    # At σ = 1 S/m waves are damped by exp(−188 t/(m/c)): no number may overflow or cancel.
    whole = create("maxwell3d", **BOX, dt=1.0, conductivity=sigma)
    half = create("maxwell3d", **BOX, dt=0.5, conductivity=sigma)
    one, two = advanced(whole, steps=1), advanced(half, steps=2)
    assert relative(two.values["magnetic"], one.values["magnetic"]) < 1e-13
    gap = (two.values["electric"] - one.values["electric"]).norm() / one.values["magnetic"].norm()
    assert float(gap) < 1e-13
    assert relative(one.values["magnetic"], whole.initial([0, 1]).values["magnetic"]) > 0.05


# ------------------------------------------------------------------------------------- conservation, symmetry


def derivative(field, spacing, axis):
    n = field.shape[axis]
    k = 2 * math.pi * torch.fft.fftfreq(n, spacing, dtype=torch.float64)
    k = k.view(-1, *[1] * (field.ndim - 1 - axis % field.ndim))
    return torch.fft.ifft(1j * k * torch.fft.fft(field, dim=axis), dim=axis).real


def divergences(solver, frames):
    fields = solver.spec.unpack(frames)
    h = solver.grid.spacing
    electric = sum(derivative(fields["electric"][:, :, i], h[i], i - 3) for i in range(3))
    b12, b13, b23 = fields["magnetic"].unbind(2)
    magnetic = derivative(b23, h[0], -3) - derivative(b13, h[1], -2) + derivative(b12, h[2], -1)
    return max(float(electric.abs().max()), float(magnetic.abs().max()))


def test_energy_is_conserved_and_no_divergence_appears():
    solver = create("maxwell3d", resolution=12, permittivity_range=(1, 4), permeability_range=(1, 2))
    start = state = solver.initial(range(3))
    fields = solver.spec.unpack(solver.observe(start))
    for field in fields.values():
        torch.testing.assert_close(field.square().sum(2).flatten(1).mean(1), torch.ones(3, dtype=torch.float64))
    for _ in range(500):
        state = solver.advance(state)
    assert float((solver.energy(state) / solver.energy(start) - 1).abs().max()) < 1e-12
    assert divergences(solver, solver.observe(state)) < 1e-11
    assert relative(solver.observe(state), solver.observe(start)) > 0.5
    noise = torch.randn(1, 1, 8, 12, 12, 12, dtype=torch.float64)
    assert divergences(solver, noise) > 1
    assert divergences(solver, solver.observe(solver.restore(noise))) < 1e-11


def test_frames_tell_that_energy_is_conserved():
    solver = create("maxwell3d", resolution=6, permittivity=2.0)
    start = solver.initial([0, 1])
    kept = solver.conserved(rollout(solver, solver.observe(start), 5))["energy"]
    torch.testing.assert_close(kept, solver.energy(start)[:, None].expand(2, 5), rtol=1e-12, atol=0)
    drawn = create("maxwell3d", resolution=6, permittivity_range=(1, 4))
    start = drawn.initial([0, 1])
    frames = rollout(drawn, drawn.observe(start), 5, start.parameters)
    assert drawn.conserved(frames) == {}
    kept = drawn.conserved(frames, start.parameters)["energy"]
    torch.testing.assert_close(kept, drawn.energy(start)[:, None].expand(2, 5), rtol=1e-12, atol=0)
    assert create("maxwell3d", resolution=6, conductivity=1e-3).conserved(frames) == {}


def test_losses_take_energy():
    solver = create("maxwell3d", resolution=8, conductivity=0.01)
    states = [advanced(solver, steps=steps) for steps in range(4)]
    energies = torch.stack([solver.energy(state) for state in states])
    assert bool((energies.diff(dim=0) < -0.05).all())


@pytest.mark.parametrize(
    "parameters", [None, {"permittivity": [[2.0], [3.0]], "conductivity": 0.01}], ids=["vacuum", "lossy"]
)
@pytest.mark.parametrize("shape", [(6, 6, 6), (5, 5, 8)], ids=str)
def test_equivariant_under_all_symmetries_of_the_grid(shape, parameters):
    solver = create("maxwell3d", resolution=shape, size=tuple(n / 6 for n in shape))
    frames = torch.randn(2, 1, 8, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_equivariant(lambda x: solver.step(x, parameters), frames, solver.spec.algebra, grid=solver.grid)


# ---------------------------------------------------------------------------------------- seeds, options, frames


def test_a_rollout_through_frames_is_one_through_states():
    solver = create("maxwell3d", resolution=8, **RANGES)
    state = solver.initial([0, 1])
    frames = solver.observe(state)
    assert isinstance(solver, Stepper)
    assert solver.time_unit == "m/c"
    assert float(frames[:, :, [0, 7]].abs().max()) == 0
    through = rollout(solver, frames, 6, state.parameters)
    in_float32 = rollout(solver, frames.float(), 6, state.parameters)
    assert in_float32.dtype == torch.float32
    for _ in range(6):
        state = solver.advance(state)
    assert relative(through[:, -1:], solver.observe(state)) < 1e-13
    assert relative(in_float32[:, -1:].double(), solver.observe(state)) < 1e-6


def test_seeds_decide_everything_whatever_the_batch():
    solver = create("maxwell3d", resolution=8, **RANGES)
    together, again, alone = solver.initial([7, 3]), solver.initial([7, 3]), solver.initial([3])
    for _ in range(3):
        for group in ("values", "parameters"):
            for name, value in getattr(together, group).items():
                assert torch.equal(value, getattr(again, group)[name])
                torch.testing.assert_close(value[1:], getattr(alone, group)[name], rtol=0, atol=1e-14)
        together, again, alone = (solver.advance(s) for s in (together, again, alone))
    assert float((together.values["electric"][0] - together.values["electric"][1]).abs().max()) > 0.01


def test_a_seed_is_one_field_on_every_grid():
    # Phases are counted from the first cell centre, which moves: compare the magnitudes.
    coarse, fine = (create("maxwell3d", resolution=n).initial([0]).values["electric"] for n in (36, 40))
    torch.testing.assert_close(
        coarse[0, :, :, 1:3, 0, 0].norm(dim=1), fine[0, :, :, 1:3, 0, 0].norm(dim=1), rtol=1e-10, atol=1e-12
    )


CHANGES = {
    "resolution": 9,
    "size": 2.0,
    "dt": 0.05,
    "permittivity": 2.0,
    "permittivity_range": (2.0, 3.0),
    "permeability": 2.0,
    "permeability_range": (2.0, 3.0),
    "conductivity": 0.01,
    "conductivity_range": (0.01, 0.02),
    "scale": 0.3,
    "smoothness": 1.0,
}


def test_every_option_changes_the_output():
    assert set(inspect.signature(Maxwell3d).parameters) == set(CHANGES)
    base = create("maxwell3d", resolution=8)
    reference = base.observe(advanced(base))
    for option, value in CHANGES.items():
        solver = create("maxwell3d", **{"resolution": 8, option: value})
        frames = solver.observe(advanced(solver))
        assert frames.shape != reference.shape or relative(frames, reference) > 1e-3, option


def test_every_parameter_changes_the_output():
    solver = create("maxwell3d", resolution=8)
    frames = solver.observe(solver.initial([0, 1]))
    reference = solver.step(frames)
    for change in ({"permittivity": 2.0}, {"permeability": 1.1}, {"conductivity": 0.01}):
        assert relative(solver.step(frames, change), reference) > 1e-3
    each = solver.step(frames, {"permittivity": torch.tensor([[1.0], [2.0]])})
    assert torch.equal(each[:1], reference[:1])
    assert relative(each[1:], reference[1:]) > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0}, r"`dt` \(=0\) must be a finite number in m/c above 0"),
        ({"scale": -1}, r"`scale` \(=-1\) must be a finite number in m above 0"),
        ({"scale": 0.01}, r"`scale` \(=0.01\) leaves no wave to draw from"),
        ({"smoothness": math.nan}, r"`smoothness` \(=nan\) must be a finite number above 0"),
        ({"resolution": (8, 8)}, r"`resolution` \(=\(8, 8\)\) must be one number for all axes, or three"),
        ({"permittivity": 2, "permittivity_range": (1, 2)}, "`permittivity` .* and `permittivity_range` .* exclude"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("maxwell3d", **options).initial([0])


def test_bad_input_of_a_step_is_refused():
    solver = create("maxwell3d", resolution=8)
    frames = solver.observe(solver.initial([0, 1]))
    with pytest.raises(ValueError, match=r"`permittivity` \(=-1\) must be finite and above 0"):
        solver.step(frames, {"permittivity": -1.0})
    with pytest.raises(ValueError, match=r"`conductivity` \(=nan S/m\) must be finite and at least 0"):
        solver.step(frames, {"conductivity": math.nan})
    frames[1, 0, 1, 3, 3] = math.nan
    with pytest.raises(ValueError, match="`frames` holds NaN or infinite values in trajectory 1 of the batch"):
        solver.step(frames)


def test_no_trajectories_at_all():
    solver = create("maxwell3d", resolution=np.int64(8))
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 8, 8, 8, 8)
    assert solver.step(torch.zeros(0, 1, 8, 8, 8, 8)).shape == (0, 1, 8, 8, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_an_accelerator():
    solver = create("maxwell3d", resolution=8, **RANGES)
    state = solver.initial([0, 1])
    there = solver.observe(solver.advance(state.to("cuda"))).cpu()
    assert relative(there, solver.observe(solver.advance(state))) < 1e-12
