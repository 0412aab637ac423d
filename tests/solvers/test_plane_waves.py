import itertools
import math

import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.solvers import State, create
from cliffsteer.solvers.plane_waves import (
    PlaneWaves,
    boost,
    boosted,
    initial_data,
    random_waves,
    spacetime_block,
    spacetime_spec,
    wave_packet,
)
from cliffsteer.symmetry import lattice_symmetries

AXES = pytest.mark.parametrize("axes", [1, 2, 3])


def algebra(axes):
    return CliffordAlgebra((1, *[-1] * axes))


def points(axes, count=50):
    return torch.randn(count, 1 + axes, dtype=torch.float64)


@AXES
@pytest.mark.parametrize("mass", [0.0, 2.5])
def test_the_klein_gordon_equation_holds(axes, mass, generator):
    # ∂ₜ²φ − ∇²φ + m²φ by central differences converges to zero with order two.
    waves, x = random_waves(axes, 12, generator, mass), points(axes)
    residuals = []
    for h in (4e-3, 2e-3, 1e-3):
        steps = h * torch.eye(1 + axes, dtype=torch.float64)
        steps[0, 0] = 0.7 * h  # equal ones would be exact for light on a line
        second = [(waves(x + e) - 2 * waves(x) + waves(x - e)) / e.square().sum() for e in steps]
        residuals.append(float((second[0] - sum(second[1:]) + mass**2 * waves(x)).norm() / second[0].norm()))
    assert all(1.9 < math.log2(a / b) < 2.1 for a, b in itertools.pairwise(residuals)), residuals
    shells = waves.vectors[:, 0].square() - waves.vectors[:, 1:].square().sum(1)
    torch.testing.assert_close(shells, torch.full_like(shells, mass**2), rtol=0, atol=1e-12)


@AXES
def test_the_gradient_is_that_of_the_field(axes, generator):
    waves, x, h = random_waves(axes, 12, generator, 2.0), points(axes), 1e-5
    unit = torch.eye(1 + axes, dtype=torch.float64)
    differences = torch.stack([(waves(x + h * e) - waves(x - h * e)) / (2 * h) for e in unit], -1)
    metric = torch.tensor([1.0, *[-1.0] * axes], dtype=torch.float64)
    torch.testing.assert_close(waves.gradient(x), metric * differences, rtol=0, atol=1e-7)


@AXES
def test_lorentz_transformations_move_the_field_as_a_scalar_and_its_gradient_as_a_vector(axes, generator):
    waves, x = random_waves(axes, 12, generator, 2.0), points(axes)
    for _ in range(5):
        matrix = algebra(axes).random_orthogonal(generator)
        moved = waves.transformed(matrix)
        torch.testing.assert_close(moved(x @ matrix.mT), waves(x), rtol=0, atol=1e-10)
        torch.testing.assert_close(moved.gradient(x @ matrix.mT), waves.gradient(x) @ matrix.mT, rtol=0, atol=1e-8)


@AXES
def test_boosts(axes, generator):
    velocity = torch.randn(axes, dtype=torch.float64, generator=generator)
    velocity = velocity / velocity.norm() * 0.6
    matrix = boost(velocity.tolist())
    assert algebra(axes).is_orthogonal(matrix, 1e-14)
    torch.testing.assert_close(matrix @ boost((-velocity).tolist()), torch.eye(1 + axes, dtype=torch.float64))
    # What moves with the velocity rests in the new frame, and its clock goes slower by γ = 1.25.
    moving = torch.cat([torch.ones(1, dtype=torch.float64), velocity])
    expected = torch.tensor([0.8, *[0.0] * axes], dtype=torch.float64)
    torch.testing.assert_close(matrix @ moving, expected, rtol=0, atol=1e-15)
    # Doppler's shift of light that runs after the observer: √((1 − β)/(1 + β)) = 1/2.
    light = torch.cat([torch.ones(1, dtype=torch.float64), velocity / 0.6])[None]
    seen = boosted(PlaneWaves(light, torch.ones(1, dtype=torch.complex128)), velocity.tolist())
    torch.testing.assert_close(seen.vectors, light / 2)


def test_boosts_beyond_light_are_refused():
    with pytest.raises(
        ValueError, match=r"`velocity` \(=\(0.8, 0.8\)\) must have one component per axis and be below 1"
    ):
        boost((0.8, 0.8))


@AXES
def test_blocks_of_spacetime_under_the_symmetries_of_their_lattice(axes, generator):
    # Reversing time or an axis turns the block about its centre, blades and all: the frames' action is the field's.
    spec, grid = spacetime_spec(axes), Grid((4, *[5] * axes), (0.3, *[0.2] * axes), "open")
    waves = random_waves(axes, 6, generator, 1.0)
    block = spacetime_block([waves], grid)
    assert block.shape == (1, 1, spec.n_blades, *grid.shape)
    for g in lattice_symmetries(spec.algebra, grid):
        moved = spacetime_block([waves.transformed(g.matrix)], grid)
        torch.testing.assert_close(g.act(spec.algebra, block), moved, rtol=0, atol=1e-12)


def test_blocks_show_the_field_where_they_say():
    waves = wave_packet((5.0, 0.0), 0.5, mass=1.0)
    grid = Grid((3, 5, 7), (0.1, 0.2, 0.3), "open")
    fields = spacetime_spec(2).unpack(spacetime_block([waves, waves], grid, center=(1.0, -2.0, 3.0)))
    at = torch.tensor([1.1, -2.4, 3.9], dtype=torch.float64)
    assert float(fields["phi"][1, 0, 0, 2, 0, 6]) == pytest.approx(float(waves(at)), abs=1e-13)
    torch.testing.assert_close(fields["gradient"][1, 0, :, 2, 0, 6], waves.gradient(at), rtol=0, atol=1e-12)


@AXES
@pytest.mark.parametrize("mass", [0.0, 4.0])
def test_the_periodic_solver_goes_on_from_waves_that_fit_into_its_box(axes, mass):
    solver = create("klein_gordon", resolution=9, size=2.0, dim=axes, dt=0.3, mass=mass, scale=3.0)
    k = math.pi * torch.randint(-3, 4, (6, axes)).to(torch.float64)
    omega = (k.square().sum(1, keepdim=True) + mass**2).sqrt()
    waves = PlaneWaves(torch.cat([omega, k], 1), torch.randn(6, dtype=torch.complex128))
    frames = solver.spec.pack(initial_data([waves, waves], solver.grid))
    later = solver.spec.pack(initial_data([waves, waves], solver.grid, 0.3))
    torch.testing.assert_close(solver.step(frames), later, rtol=1e-12, atol=1e-12)


def test_a_boosted_packet_in_a_box_large_enough_goes_on_as_its_boosted_future():
    # The same physical field, in two frames: each solver run must agree with the other's field in its own coordinates.
    still = wave_packet((12.0,), 0.35, mass=6.0)
    seen = boosted(still, (0.5,))
    solver = create("klein_gordon", resolution=128, size=7.0, dim=1, dt=0.25, mass=6.0, scale=1.0)
    # The box is made periodic by a window that acts only where the packet is small.
    x = solver.grid.coordinates()[0] - 3.5
    for waves in (still, seen):
        start = initial_data([waves], solver.grid)
        window = torch.exp(-((x / 2.6) ** 20))
        values = {name: (value[:, 0] * window) for name, value in start.items()}
        end = solver.advance(State(values, solver.initial([0]).parameters))
        exact = initial_data([waves], solver.grid, 0.25)["phi"][0, 0]
        near = x.abs() < 1.2
        assert float((end.values["phi"][0] - exact)[near].abs().max()) < 1e-5
    matrix = boost((0.5,))
    events = points(1)
    torch.testing.assert_close(seen(events @ matrix.mT), still(events), rtol=0, atol=1e-12)


def test_random_waves_have_variance_one(generator):
    waves = random_waves(3, 4000, generator, mass=1.0, wavelengths=(0.5, 1.0))
    assert float(waves.amplitudes.abs().square().sum() / 2) == pytest.approx(1, abs=0.05)
    numbers = waves.vectors[:, 1:].norm(dim=1) / (2 * math.pi)
    assert 1 <= float(numbers.min()) < 1.01
    assert 1.99 < float(numbers.max()) <= 2
    assert float(waves.vectors[:, 1:].mean(0).abs().max()) < 0.3


@AXES
def test_a_wave_packet_is_gaussian_and_moves_with_its_group_velocity(axes):
    k0, width, mass = [8.0, 3.0, -2.0][:axes], 0.7, 6.0
    center = [0.3, -0.2, 0.1][:axes]
    waves = wave_packet(k0, width, mass, center)
    x0 = torch.tensor(center, dtype=torch.float64)
    offset = torch.randn(200, axes, dtype=torch.float64)
    offset = offset / offset.norm(dim=1, keepdim=True) * torch.linspace(0, 4 * width, 200, dtype=torch.float64)[:, None]
    at = torch.cat([torch.zeros(200, 1, dtype=torch.float64), x0 + offset], 1)
    k = torch.tensor(k0, dtype=torch.float64)
    expected = torch.exp(-offset.square().sum(1) / (2 * width**2)) * torch.cos(offset @ k)
    torch.testing.assert_close(waves(at), expected, rtol=0, atol=1e-6)
    velocity = k / math.sqrt(float(k.square().sum()) + mass**2)
    ahead = torch.cat([torch.ones(1, dtype=torch.float64), x0 + velocity])
    behind = torch.cat([torch.ones(1, dtype=torch.float64), x0 - velocity])

    def envelope(event):
        around = event + torch.linspace(-0.2, 0.2, 41, dtype=torch.float64)[:, None] * torch.cat(
            [torch.zeros(1), k / k.norm()]
        )
        return float(waves(around).abs().max())

    assert envelope(ahead) > 0.7
    assert envelope(behind) < 0.3
