import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.inertia_gravity import WaveModes
from cliffsteer.solvers.spectral_grid import SpectralGrid

SPECTRAL = SpectralGrid(Grid((12, 9), (0.5, 0.4)))
F, G, H = (torch.tensor(values, dtype=torch.float64) for values in ([0.7, -0.4, 0.0], [9.8, 2.0, 5.0], [1.0, 3.0, 0.5]))


@pytest.fixture
def coefficients():
    return SPECTRAL.forward(torch.randn(3, 3, 12, 9, dtype=torch.float64))


def test_synthesis_inverts_analysis_and_keeps_energy(coefficients):
    modes = WaveModes(SPECTRAL, F, G, H)
    w = modes.analyse(coefficients)
    torch.testing.assert_close(modes.synthesise(w), coefficients, rtol=0, atol=1e-15)
    energy = coefficients.abs().square()
    expected = energy[:, 1] + energy[:, 2] + (G / H)[:, None, None] * energy[:, 0]
    torch.testing.assert_close(w.abs().square().sum(1), expected)


def test_modes_are_those_of_the_linear_equations(coefficients):
    modes = WaveModes(SPECTRAL, F, G, H)
    ik = SPECTRAL.derivatives()
    f, g, h = (x[:, None, None] for x in (F, G, H))
    eta, u, v = coefficients.unbind(1)
    tendency = torch.stack([-h * (ik[0] * u + ik[1] * v), f * v - g * ik[0] * eta, -f * u - g * ik[1] * eta], 1)
    by_modes = modes.synthesise(modes.rates * modes.analyse(coefficients))
    torch.testing.assert_close(by_modes, tendency, rtol=1e-13, atol=1e-14)


def test_dispersion_relation():
    modes = WaveModes(SPECTRAL, F, G, H)
    squares = F.square()[:, None, None] + (G * H)[:, None, None] * SPECTRAL.squares()
    assert float(modes.rates[:, 0].abs().max()) == 0
    torch.testing.assert_close(modes.rates[:, 1], -1j * squares.sqrt())
    torch.testing.assert_close(modes.rates[:, 2], 1j * squares.sqrt())


def test_the_balanced_mode_is_geostrophic():
    modes = WaveModes(SPECTRAL, F, G, H)
    w = torch.zeros(3, 3, *SPECTRAL.shape, dtype=torch.complex128)
    w[:, 0] = 1
    eta, u, v = modes.synthesise(w).unbind(1)
    ik = SPECTRAL.derivatives()
    f, g = F[:, None, None], G[:, None, None]
    torch.testing.assert_close(f * v, g * ik[0] * eta, rtol=0, atol=1e-14)
    torch.testing.assert_close(-f * u, g * ik[1] * eta, rtol=0, atol=1e-14)
