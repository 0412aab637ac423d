"""Bands see the waves that lie in them, and together make up the whole error."""

import math

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.metrics import FieldErrors, SpectralErrors

SPEC, GRID = FieldSpec((1, 1), [Field("phi", 0)]), Grid((24, 24), 0.5)


def wave(number, amplitude=1.0):
    """A wave along the first axis with so many periods in the box, (1, 1, blade, 24, 24)."""
    x = (torch.arange(24) + 0.5) / 24
    phi = amplitude * (2 * math.pi * number * x).sin().view(1, 1, 24, 1).expand(1, 1, 24, 24)
    return SPEC.pack({"phi": phi})


def measured(prediction, truth, grid=GRID):
    metric = SpectralErrors(SPEC, grid)
    metric.update(prediction, truth)
    return metric.compute()["fields"]["phi"]


def test_a_wrong_amplitude_is_seen_in_the_band_of_its_wave_alone():
    waves = {"low": 3, "mid": 6, "high": 10}  # the shortest wave has number 12, the edges lie at 4 and 8
    truth = sum(wave(number) for number in waves.values())
    for band, number in waves.items():
        result = measured(truth + wave(number, 0.5), truth)
        expected = {other: [pytest.approx(0.5 * (other == band), abs=1e-6)] for other in waves}
        assert result["error"] == expected
        assert result["energy"] == {other: [pytest.approx(2.25 if other == band else 1.0)] for other in waves}


def test_edges_are_thirds_of_the_shortest_wave_and_belong_to_the_band_below():
    edges = SpectralErrors(SPEC, GRID).edges
    assert edges == pytest.approx([0, math.pi / 1.5, 2 * math.pi / 1.5])
    result = measured(torch.zeros_like(wave(4)), wave(4))
    assert result["error"]["low"] == [pytest.approx(1.0)]
    assert result["energy"]["low"] == [0.0]
    # where the truth has rounding only, its error is as large as itself, but nothing is left of the power
    metric = SpectralErrors(SPEC, GRID)
    metric.update(torch.zeros_like(wave(8)), wave(8))
    assert metric.truth[0, 0].tolist() == pytest.approx([0, 0.5, 0], abs=1e-6)


def test_the_bands_make_up_the_whole_error():
    truth, prediction = torch.randn(3, 2, 4, 24, 24), torch.randn(3, 2, 4, 24, 24)
    spectral, errors = SpectralErrors(SPEC, GRID, 2), FieldErrors(SPEC, 2)
    for metric in (spectral, errors):
        metric.update(prediction, truth)
    nrmse = (spectral.error.sum(2) / spectral.truth.sum(2)).sqrt()[:, 0].tolist()
    assert nrmse == pytest.approx(errors.compute()["fields"]["phi"]["nrmse"], rel=1e-9)


def test_right_powers_at_wrong_phases_show_in_the_error_only():
    truth = wave(3)
    result = measured(truth.roll(2, 3), truth)  # by a quarter of the wave
    assert result["energy"]["low"] == [pytest.approx(1.0)]
    assert result["error"]["low"] == [pytest.approx(math.sqrt(2))]


def test_a_diverged_frame_has_no_spectrum():
    truth = torch.randn(1, 1, 4, 24, 24)
    broken = truth.clone()
    broken[0, 0, 0, 1, 1] = float("inf")
    assert all(math.isnan(value[0]) for value in measured(broken, truth)["error"].values())


def test_waves_run_in_space_only_on_blocks_of_spacetime():
    spec, grid = FieldSpec((1, -1), [Field("phi", 0)]), Grid((5, 12), (0.1, 1.0), ("open", "periodic"))
    metric = SpectralErrors(spec, grid)
    metric.update(torch.zeros(1, 1, 4, 5, 12), torch.randn(1, 1, 4, 5, 12))
    assert metric.edges[1] == pytest.approx(math.pi / 3)
    assert metric.compute()["fields"]["phi"]["error"] == {"low": [1.0], "mid": [1.0], "high": [1.0]}
