"""Surrogates on other grids, with other time steps, and at other scales."""

import logging
import re

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper, Surrogate, rollout
from cliffsteer.coupling import Repeated, Rescaled, at
from cliffsteer.coupling.rescaled import unit_exponents
from cliffsteer.coupling.transfer import transfer
from cliffsteer.normalization import Normalization
from cliffsteer.solvers import create
from cliffsteer.solvers.registry import _BUILT_IN as BUILT_IN

SPEC = FieldSpec((1, 1), [Field("scalar", 0), Field("velocity", 1, "m/s")])
SMOOTH = {"kernel": "complete", "kernel_options": {"radial": "smooth"}, "padding": "periodic", "norm": None}
MODELS = {
    "smooth": {"name": "csresnet", "hidden_channels": 4, "blocks": [1], "kernel_size": 5, **SMOOTH},
    "free": {
        "name": "resnet",
        "hidden_channels": 4,
        "blocks": [1],
        "kernel_size": 3,
        "padding": "periodic",
        "norm": None,
    },
    "spectral": {"name": "csfno", "hidden_channels": 4, "blocks": [1], "modes": 3, "norm": None},
}


def surrogate(model, n=16, boundary="periodic"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Surrogate.create(
            MODELS[model], SPEC, Grid((n, n), 1.0, boundary), 0.5, 1, 1, Normalization.identity(SPEC)
        )
    return made.double().eval().requires_grad_(False)


def waves(n, repeat=1):
    """Long waves on n cells, periodic in n / repeat of them."""
    x, y = 2 * torch.pi * repeat * Grid((n, n), 1 / n).coordinates()
    fields = {"scalar": (x + y).sin()[None, None], "velocity": torch.stack([y.cos(), (x - y).sin()])[None, None]}
    return SPEC.pack(fields)


@pytest.mark.parametrize("model", ["smooth", "free"])
def test_more_cells_of_the_same_size(model):
    here = surrogate(model)
    there = at(here, Grid((32, 32), 1.0))
    out = there.step(waves(32, repeat=2))
    torch.testing.assert_close(out, here.step(waves(16)).repeat(1, 1, 1, 2, 2), rtol=0, atol=1e-12)
    assert here.grid.shape == (16, 16)


def test_a_finer_grid_keeps_the_waves_of_spectral_layers(caplog):
    here, fine = surrogate("spectral"), Grid((32, 32), 0.5)
    caplog.set_level(logging.INFO)
    there = at(here, fine, frames=waves(16))
    assert there.step(waves(32)).shape == (1, 1, 4, 32, 32)
    assert "at (32, 32) cells the step differs by 0.0" in caplog.text  # products of waves alias on the coarse grid
    x = torch.cat([waves(16)] * 4, 1)
    layer, finer = (s.network.blocks[0].spectral for s in (here, there))
    torch.testing.assert_close(finer(transfer(x, SPEC, here.grid, fine)), transfer(layer(x), SPEC, here.grid, fine))


def test_smooth_kernels_are_sampled_anew_and_the_difference_is_measured(caplog):
    here, fine = surrogate("smooth"), Grid((32, 32), 0.5)
    with pytest.raises(
        ValueError, match=r"changes the step by 0\.\d+ of the change in it, more than `tolerance` \(=0.1\)"
    ):
        at(here, fine, frames=waves(16))
    caplog.set_level(logging.INFO)
    there = at(here, fine, frames=waves(16), tolerance=0.5)
    assert there.network.blocks[0].conv1.kernel_size == 9
    stated = float(re.search(r"differs by (\S+)", caplog.text)[1])
    expected = transfer(here.step(waves(16)), SPEC, here.grid, fine)
    start = transfer(waves(16), SPEC, here.grid, fine)
    measured = (there.step(start) - expected).norm() / (expected - start).norm()
    assert stated == pytest.approx(float(measured), rel=0.05)


def test_whole_multiples_of_the_time_step():
    here = surrogate("free")
    double = at(here, dt=1.0)
    assert isinstance(double, Repeated)
    assert double.dt == 1.0
    torch.testing.assert_close(double.step(waves(16)), rollout(here, waves(16), 2)[:, -1:])
    assert at(here) is here
    assert at(here, dt=0.5) is here


def test_what_the_mathematics_does_not_allow_is_refused_with_the_reason():
    smooth, free, spectral = (surrogate(model) for model in ("smooth", "free", "spectral"))
    for made, grid, message in [
        (spectral, Grid((32, 32), 1.0), "whose waves are counted per domain"),
        (spectral, Grid((4, 4), 4.0), r"`grid` \(=\(4, 4\)\) does not suit the network"),
        (free, Grid((32, 32), 0.5), "has a free kernel, which says nothing between its points"),
        (surrogate("free", boundary="slip"), Grid((16, 16), 1.0, "no_slip"), "what happens at walls is learned"),
        (smooth, Grid((32, 32), 0.25), "one of the two must stay; where times scale along, use Rescaled"),
        (smooth, Grid((32, 16), (0.5, 1.0)), "refines axes differently"),
        (smooth, Grid((20, 20), 0.8), "6 points wide, which must be odd"),
        (smooth, Grid((32, 32), 0.5), "`frames` is missing: at another size of cells"),
    ]:
        with pytest.raises(ValueError, match=message):
            at(made, grid)
    with pytest.raises(ValueError, match=r"`dt` \(=0.75\) is no whole multiple of the surrogate's, 0.5"):
        at(free, dt=0.75)


# -------------------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("name", ["turbulence", "smoke", "shallow_water", "wave"])
def test_a_rescaled_solver_is_the_solver_of_the_other_scale(name):
    small = create(name, resolution=16)
    length, time = 2.0, 0.5
    hidden = {"depth": 1000.0 * length, "damping": 2e-5 / time} if name == "shallow_water" else {}
    large = create(name, resolution=16, size=small.grid.extent[0] * length, dt=small.dt * time, **hidden)
    stepper = Rescaled(small, length, time)
    assert isinstance(stepper, Stepper)
    torch.testing.assert_close(torch.tensor(stepper.grid.spacing), torch.tensor(large.grid.spacing))
    assert stepper.dt == pytest.approx(large.dt)
    state = small.initial([0, 1])
    frames = rollout(small, small.observe(state), 2, state.parameters)[:, -1:]
    factors = torch.ones(small.spec.n_blades, dtype=torch.float64)
    for field in small.spec.dynamic:
        exponents = unit_exponents(field.unit)
        slot = small.spec.slots[field.name]
        factors[slot.start : slot.stop] = length ** exponents.get("m", 0) * time ** exponents.get("s", 0)
    outside = frames * factors.view(-1, 1, 1)
    torch.testing.assert_close(stepper.step(outside), large.step(outside), rtol=1e-9, atol=1e-9)


def test_the_klein_gordon_equation_ties_length_to_time():
    small, large = (create("klein_gordon", resolution=16, size=s, dt=0.05 * s) for s in (1.0, 3.0))
    frames, given = small.observe(small.initial([0, 1])), {"mass": 2.0}
    torch.testing.assert_close(Rescaled(small, 3.0, 3.0).step(frames, given), large.step(frames, given))
    with pytest.raises(ValueError, match=r"the speed of light enters the equations of 'phi' \(1\)"):
        Rescaled(small, 3.0, 2.0)


def test_every_registered_solver_is_rescaled_or_refused():
    free = {"shallow_water", "smoke", "smoke_phiflow", "smoke_scene", "turbulence", "wave"}
    for name in BUILT_IN:  # other tests register plugins of their own
        solver = create(name)
        if name in free:
            assert Rescaled(solver, 3.0, 2.0).dt == pytest.approx(2 * solver.dt)
        else:
            with pytest.raises(ValueError, match="the speed of light enters the equations of"):
                Rescaled(solver, 3.0, 2.0)


def test_light_ties_length_to_time():
    small, large = (create("maxwell3d", resolution=8, size=s, dt=0.1 * s, conductivity=0.01 / s) for s in (1.0, 3.0))
    frames = small.observe(small.initial([0]))
    given = {"conductivity": 0.01 / 3}
    torch.testing.assert_close(Rescaled(small, 3.0, 3.0).step(frames, given), large.step(frames, given))
    with pytest.raises(ValueError, match=r"`time` \(=2.0\) must equal `length` \(=3.0\): the speed of light"):
        Rescaled(small, 3.0, 2.0)


def test_units():
    assert unit_exponents("1") == {"1": 1}
    assert unit_exponents("kg*m^2/s^2") == {"kg": 1, "m": 2, "s": -2}
    with pytest.raises(ValueError, match="'Pa' is none of m, s"):
        unit_exponents("Pa/m")
    with pytest.raises(ValueError, match=r"`length` \(=0\) must be positive"):
        Rescaled(create("smoke", resolution=8), 0, 1)
