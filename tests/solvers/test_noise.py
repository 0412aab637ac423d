import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.noise import smooth_noise


def noise(seed, n=32, size=32.0, scale=11.0, smoothness=6.0, dim=2):
    return smooth_noise(Grid((n,) * dim, size / n), scale, smoothness, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_mean_zero_variance_one(dim):
    field = noise(0, 12, dim=dim)
    assert field.dtype == torch.float64
    assert abs(float(field.mean())) < 1e-12
    assert float(field.square().mean()) == pytest.approx(1, abs=1e-12)


def test_a_seed_is_one_field_on_every_grid():
    # Cells of the fine grid of odd ratio share centres with those of the coarse one.
    coarse, fine = noise(3, 40), noise(3, 120)
    torch.testing.assert_close(fine[1::3, 1::3], coarse, rtol=0, atol=1e-12)
    assert not torch.allclose(noise(4, 40), coarse)


def test_spectrum_is_isotropic_and_falls_as_told():
    # With a scale of 5.5 m the waves below |k| = √0.1/5.5 m (1.84 per 32 m) are cut off.
    power = torch.stack([torch.fft.fft2(noise(s, 16, scale=5.5, smoothness=1.0)).abs().square() for s in range(600)])
    mean = power.mean(0)
    assert float(mean[0, 0]) < 1e-20
    assert float(mean[1, 0]) < 1e-20
    assert float(mean[1, 1]) < 1e-20
    assert float(mean[2, 0] / mean[0, 2]) == pytest.approx(1, abs=0.2)
    assert float(mean[3, 1] / mean[1, -3]) == pytest.approx(1, abs=0.2)
    assert float(mean[2, 0] / mean[4, 0]) == pytest.approx(2.0**4, rel=0.25)


def test_a_scale_without_waves_is_refused():
    with pytest.raises(ValueError, match=r"`scale` \(=1.0\) leaves no wave to draw from .* it must exceed 2.02"):
        noise(0, 12, scale=1.0)
