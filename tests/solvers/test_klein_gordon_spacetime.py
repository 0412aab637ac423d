import inspect
import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers import create
from cliffsteer.solvers.klein_gordon_spacetime import KleinGordonSpacetime
from cliffsteer.solvers.plane_waves import PlaneWaves, spacetime_block

SMALL = {"resolution": 8, "wavelengths": (0.6, 1.2)}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def frames(solver, seeds=(0, 1), steps=0):
    state = solver.initial(seeds)
    for _ in range(steps):
        state = solver.advance(state)
    return solver.observe(state)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_klein_gordon_equation_holds_in_the_block(dim):
    # ∂ₜ²φ − ∇²φ + m²φ by central differences within the block: of second order.
    residuals = []
    for n in (13, 27):
        solver = create("klein_gordon_spacetime", resolution=n, dim=dim, mass=3.0, wavelengths=(1.5, 3.0), boost=0.3)
        phi = frames(solver, (0,))[0, 0, 0]
        inner = tuple(slice(1, -1) for _ in range(dim + 1))
        second = [
            phi.diff(n=2, dim=i)[tuple(slice(None) if j == i else s for j, s in enumerate(inner))] / h**2
            for i, h in enumerate(solver.grid.spacing)
        ]
        residuals.append(relative(second[0] - sum(second[1:]), -9 * phi[inner]))
    assert 1.7 < math.log2(residuals[0] / residuals[1]) < 2.4, residuals


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_seed_is_one_field_seen_by_observers_that_move(dim):
    rest, moving = (create("klein_gordon_spacetime", **SMALL, dim=dim, mass=2.0, boost=v) for v in (0.0, 0.25))
    for a, b in zip(rest.fields(rest.initial([0, 1])), moving.fields(moving.initial([0, 1])), strict=True):
        # Both have the same waves of the same mass; what relates their vectors is one Lorentz transformation.
        torch.testing.assert_close(a.amplitudes, b.amplitudes, rtol=0, atol=0)
        matrix = torch.linalg.lstsq(a.vectors, b.vectors).solution.mT
        assert rest.spec.algebra.is_orthogonal(matrix, 1e-10)
        assert float(matrix[0, 0]) == pytest.approx(1 / math.sqrt(1 - 0.25**2), rel=1e-10)
        x = torch.randn(20, 1 + dim, dtype=torch.float64)
        torch.testing.assert_close(b(x @ matrix.mT), a(x), rtol=0, atol=1e-10)
    assert relative(frames(moving), frames(rest)) > 0.05


def test_blocks_follow_each_other():
    short, long = (create("klein_gordon_spacetime", **SMALL, block=block, boost=0.2) for block in (4, 12))
    parts = [short.observe(short.initial([3]))]
    parts.append(frames(short, (3,), 1))
    parts.append(frames(short, (3,), 2))
    assert relative(torch.cat(parts, 3), frames(long, (3,))) < 1e-12


def test_frames_are_the_field_and_its_gradient_about_the_middle():
    solver = create("klein_gordon_spacetime", **SMALL, dim=1, waves=1)
    state = solver.initial([0])
    grid = Grid((1, 1), solver.grid.spacing, "open", "m")
    at = (2.5 * solver.grid.spacing[0], 1.5 * solver.grid.spacing[1])  # two cells and a half after the start; from 0
    waves = PlaneWaves(state.values["vectors"][0], state.values["amplitudes"][0])
    expected = spacetime_block([waves], grid, at)[0, 0, :, 0, 0]
    torch.testing.assert_close(solver.observe(state)[0, 0, :, 2, 5], expected, rtol=0, atol=1e-12)


CHANGES = {
    "resolution": 10,
    "size": 1.1,
    "block": 6,
    "courant": 0.8,
    "dim": 1,
    "mass": 3.0,
    "mass_range": (2.0, 3.0),
    "waves": 5,
    "wavelengths": (0.7, 1.2),
    "boost": 0.1,
}


def test_every_option_changes_the_output():
    assert set(inspect.signature(KleinGordonSpacetime).parameters) == set(CHANGES)
    reference = frames(create("klein_gordon_spacetime", **SMALL))
    for option, value in CHANGES.items():
        out = frames(create("klein_gordon_spacetime", **{**SMALL, option: value}))
        assert out.shape != reference.shape or relative(out, reference) > 1e-3, option


def test_drawn_masses():
    solver = create("klein_gordon_spacetime", **SMALL, mass_range=(1.0, 4.0), boost=0.2)
    state = solver.initial(range(50))
    mass = state.parameters["mass"]
    assert 1 <= float(mass.min()) < 1.3 < 3.7 < float(mass.max()) <= 4
    k = state.values["vectors"]
    torch.testing.assert_close(k[..., 0].square() - k[..., 1:].square().sum(2), mass.square().expand(-1, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boost": 1.0}, r"`boost` \(=1.0\) must be below 1, the speed of light"),
        ({"boost": -0.1}, r"`boost` \(=-0.1\) must be a finite number in c, at least 0"),
        ({"boost": 0.9}, r"`wavelengths` \(=\(0.6, 1.2\)\) come down to waves of .* with `boost` \(=0.9\)"),
        ({"wavelengths": (0.1, 1.0)}, r"`wavelengths` \(=\(0.1, 1.0\)\) come down to waves of 0.1 m"),
        ({"wavelengths": (2.0, 1.0)}, r"`wavelengths` \(=\(2.0, 1.0\)\) must be a pair \(lowest, highest\)"),
        ({"wavelengths": 0.5}, r"`wavelengths` \(=0.5\) must be a pair"),
        ({"mass": 60.0}, "periods of 0.1"),
        ({"dim": 4}, r"`dim` \(=4\) must be 1 or 2 or 3"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("klein_gordon_spacetime", **SMALL | options)


def test_frames_cannot_be_restored():
    solver = create("klein_gordon_spacetime", **SMALL)
    with pytest.raises(ValueError, match="show a window, but not the waves that enter it later"):
        solver.step(frames(solver))


def test_no_trajectories_at_all():
    solver = create("klein_gordon_spacetime", **SMALL)
    assert solver.observe(solver.advance(solver.initial([]))).shape == (0, 1, 8, 8, 8, 8)
