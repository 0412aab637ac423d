import math

import numpy as np
import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets.spectra import isotropic_spectra
from cliffsteer.symmetry import lattice_symmetries


def spec_of(signature):
    return FieldSpec(signature, [Field("a", 0), Field("v", 1)])


@pytest.mark.parametrize(("signature", "shape"), [((1,), (9,)), ((1, 1), (8, 6)), ((1, 1, 1), (4, 6, 5))])
def test_the_shells_of_a_periodic_field_sum_to_its_mean_square(signature, shape):
    spec, grid = spec_of(signature), Grid(shape, 0.5)
    frames = torch.randn(2, 3, spec.n_blades, *shape, dtype=torch.float64)
    k, spectra = isotropic_spectra(spec, grid, frames)
    step = 2 * math.pi / max(grid.extent)
    np.testing.assert_allclose(np.diff(k), step)
    for name, part in spec.unpack(frames).items():
        square = part.square().sum(2).flatten(2).mean(2)
        np.testing.assert_allclose(spectra[name].sum(-1) * step, square, rtol=1e-12)


def test_a_wave_lies_in_the_shell_of_its_length():
    spec, grid = spec_of((1, 1)), Grid((32, 32), 0.25)
    x = grid.coordinates()
    step = 2 * math.pi / 8
    wave = torch.cos(step * (3 * x[0] + 4 * x[1]))
    frames = torch.zeros(1, 1, 4, 32, 32, dtype=torch.float64)
    frames[0, 0, 0], frames[0, 0, 1] = 2 * wave, wave
    k, spectra = isotropic_spectra(spec, grid, frames)
    assert k[5] == pytest.approx(5 * step)
    for name, size in (("a", 2.0), ("v", 0.5)):
        expected = np.zeros(len(k))
        expected[5] = size / step
        np.testing.assert_allclose(spectra[name][0, 0], expected, atol=1e-12)


def test_walls_do_not_hide_the_spectrum():
    # half a wave from wall to wall: as a periodic function it jumps, and its spectrum would fall off as k^-2 only
    spec, grid = spec_of((1, 1)), Grid((64, 64), 1 / 64, "slip")
    x = grid.coordinates()
    frames = torch.zeros(1, 1, 4, 64, 64, dtype=torch.float64)
    frames[0, 0, 0] = torch.cos(math.pi * x[0])
    _, spectra = isotropic_spectra(spec, grid, frames)
    periodic = isotropic_spectra(spec, Grid((64, 64), 1 / 64), frames)[1]
    assert spectra["a"][0, 0, 16] < 1e-3 * periodic["a"][0, 0, 16]
    constant = torch.ones_like(frames)
    np.testing.assert_allclose(isotropic_spectra(spec, grid, constant)[1]["a"][0, 0, 1:], 0, atol=1e-15)


def test_time_is_averaged_over_in_spacetime():
    spec = spec_of((1, -1, -1))
    grid = Grid((4, 8, 8), (0.1, 0.5, 0.5), unit=("s", "m", "m"))
    frames = torch.randn(1, 1, 8, 4, 8, 8, dtype=torch.float64)
    k, spectra = isotropic_spectra(spec, grid, frames)
    assert k[1] == pytest.approx(2 * math.pi / 4)
    flat = FieldSpec((1, 1), [Field("a", 0)])
    slices = torch.zeros(4, 1, 4, 8, 8, dtype=torch.float64)
    slices[:, 0, 0] = frames[0, 0, 0]
    expected = isotropic_spectra(flat, Grid((8, 8), 0.5), slices)[1]["a"].mean(0)
    np.testing.assert_allclose(spectra["a"][0], expected)


@pytest.mark.parametrize("boundary", ["periodic", "no_slip"])
def test_turning_the_field_changes_nothing(boundary):
    spec, grid = spec_of((1, 1)), Grid((6, 6), 1.0, boundary)
    frames = torch.randn(1, 1, 4, 6, 6, dtype=torch.float64)
    _, expected = isotropic_spectra(spec, grid, frames)
    for symmetry in lattice_symmetries(spec.algebra, grid):
        _, found = isotropic_spectra(spec, grid, symmetry.act(spec.algebra, frames))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-10)
