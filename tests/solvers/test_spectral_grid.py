import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.spectral_grid import SpectralGrid

GRIDS = [Grid((12,), 0.5), Grid((12, 9), (0.5, 0.25)), Grid((8, 7, 10), (0.3, 0.4, 0.5))]


def random_coefficients(spectral, *outer):
    return spectral.forward(torch.randn(*outer, *spectral.grid.shape, dtype=torch.float64))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dim}d")
def test_kept_waves_survive_and_the_others_do_not(grid):
    spectral = SpectralGrid(grid)
    c = random_coefficients(spectral, 2, 3)
    assert c.shape == (2, 3, *spectral.shape)
    torch.testing.assert_close(spectral.forward(spectral.inverse(c)), c, rtol=0, atol=1e-15)
    spectrum = torch.fft.fftn(spectral.inverse(c), dim=tuple(range(-grid.dim, 0)))
    for axis, (n, m) in enumerate(zip(grid.shape, spectral.highest, strict=True)):
        assert 3 * m < n <= 3 * m + 3
        lost = spectrum.narrow(2 + axis, m + 1, n - 2 * m - 1)
        assert float(lost.abs().max()) < 1e-13
        assert float(spectrum.select(2 + axis, m).abs().max()) > 1e-3


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dim}d")
def test_products_have_no_aliasing(grid):
    # On a grid of twice the cells nothing aliases; its coefficients that the coarse grid keeps must be the same.
    fine = Grid(tuple(2 * n for n in grid.shape), tuple(h / 2 for h in grid.spacing))
    spectral, reference = SpectralGrid(grid), SpectralGrid(fine)
    a, b = (random_coefficients(spectral) for _ in range(2))

    def refined(c):
        out = torch.zeros(reference.shape, dtype=c.dtype)
        out[kept(spectral, reference)] = c
        return reference.inverse(out)

    product = spectral.forward(spectral.inverse(a) * spectral.inverse(b))
    exact = reference.forward(refined(a) * refined(b))[kept(spectral, reference)]
    torch.testing.assert_close(product, exact, rtol=0, atol=1e-14)


def kept(coarse, fine):
    """Where the waves of one grid are among those of another."""
    m = [
        torch.cat([torch.arange(low + 1), torch.arange(2 * high + 1 - low, 2 * high + 1)])
        for low, high in zip(coarse.highest[:-1], fine.highest[:-1], strict=True)
    ]
    return torch.meshgrid(*m, torch.arange(coarse.highest[-1] + 1), indexing="ij")


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dim}d")
def test_derivatives_and_wave_vectors(grid):
    spectral = SpectralGrid(grid)
    k = torch.tensor([2 * math.pi * (i + 1) / length for i, length in enumerate(grid.extent)], dtype=torch.float64)
    phase = torch.tensordot(k, grid.coordinates(), 1)
    c = spectral.forward(phase.sin())
    gradient = spectral.inverse(spectral.derivatives() * c)
    expected = k.view(-1, *[1] * grid.dim) * phase.cos()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(spectral.divergence(spectral.derivatives() * c), -spectral.squares() * c)
    assert torch.equal(spectral.squares(), spectral.vectors().square().sum(0))


@pytest.mark.parametrize("grid", GRIDS[1:], ids=lambda grid: f"{grid.dim}d")
def test_projection_takes_gradients_away_and_keeps_the_rest(grid):
    spectral = SpectralGrid(grid)
    c = random_coefficients(spectral, 2, grid.dim)
    projected = spectral.project(c)
    assert float(spectral.divergence(projected).abs().max()) < 1e-14
    torch.testing.assert_close(spectral.project(projected), projected, rtol=0, atol=1e-15)
    gradient = spectral.derivatives() * random_coefficients(spectral, 2, 1)
    assert float(spectral.project(gradient).abs().max()) < 1e-14
    assert torch.equal(projected[(..., *[0] * grid.dim)], c[(..., *[0] * grid.dim)])


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dim}d")
def test_mean_product(grid):
    spectral = SpectralGrid(grid)
    a, b = (random_coefficients(spectral, 2, 3) for _ in range(2))
    expected = (spectral.inverse(a) * spectral.inverse(b)).flatten(2).mean(2)
    torch.testing.assert_close(spectral.mean_product(a, b), expected)


def test_grids_without_waves_are_refused():
    with pytest.raises(ValueError, match=r"`grid` has boundary .*: Fourier series need periodic sides"):
        SpectralGrid(Grid((8, 8), 1.0, "slip"))
    with pytest.raises(ValueError, match=r"`grid` has shape \(8, 3\): at least 4 cells along each axis"):
        SpectralGrid(Grid((8, 3)))
