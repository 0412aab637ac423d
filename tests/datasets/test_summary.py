import numpy as np
import pytest
import torch

from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.datasets.summary import find_solver, summarize


@pytest.fixture(scope="module")
def train(finished):
    return TrajectoryDataset(finished, "train")


def test_numbers_are_those_of_all_frames_at_once(train):
    summary = summarize(train)
    frames = torch.stack([train.read(i) for i in range(5)]).double()
    for name, part in train.spec.unpack(frames).items():
        numbers = summary.fields[name]
        assert numbers.mean == pytest.approx(float(part.mean()), rel=1e-10, abs=1e-12)
        assert numbers.deviation == pytest.approx(float(part.std(correction=0)), rel=1e-10)
        assert (numbers.low, numbers.high) == (float(part.min()), float(part.max()))
        assert numbers.rms == pytest.approx(float(part.square().mean().sqrt()), rel=1e-10)
        assert numbers.largest == pytest.approx(float(part.square().sum(2).max().sqrt()), rel=1e-10)
        assert numbers.change == pytest.approx(float(part.diff(dim=1).square().mean().sqrt()), rel=1e-10)
    wind = train.spec.unpack_parameters(train.parameters)["wind"]
    assert summary.parameters["wind"] == (float(wind.min()), float(wind.max()))


def test_totals_and_squares_over_time(train):
    histories = summarize(train).histories
    temperature, flux = train.spec.unpack(torch.stack([train.read(i) for i in range(5)]).double()).values()
    volume = 1 / 64
    expected = {
        "total temperature": volume * temperature.sum((2, 3, 4)),
        "square temperature": volume * temperature.square().sum((2, 3, 4)),
        "total flux e1": volume * flux[:, :, 0].sum((2, 3)),
        "total flux e2": volume * flux[:, :, 1].sum((2, 3)),
        "square flux": volume * flux.square().sum((2, 3, 4)),
    }
    assert set(histories) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(histories[name], values, rtol=1e-10, atol=1e-12)


def test_heat_is_kept_and_its_square_is_not(train):
    summary = summarize(train, find_solver(train.manifest))
    assert summary.drifts["total temperature"][1] < 1e-6  # float32
    assert summary.drifts["heat"][1] < 1e-6  # what the solver says
    assert 0.2 < summary.drifts["square flux"][0] <= summary.drifts["square flux"][1] <= 1
    numbers = summary.histories["square flux"]
    by_hand = np.abs(numbers - numbers[:, :1]).max(1) / numbers.max(1)
    np.testing.assert_allclose(summary.trajectory_drifts["square flux"], by_hand)


def test_a_solver_that_is_not_installed_is_none(train):
    assert find_solver(train.manifest).spec == train.spec
    import dataclasses

    recipe = dataclasses.replace(train.manifest.recipe, solver="gone")
    assert find_solver(dataclasses.replace(train.manifest, recipe=recipe)) is None
