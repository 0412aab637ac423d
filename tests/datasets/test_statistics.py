import numpy as np
import pytest
import torch

from cliffsteer.datasets import Recipe, TrajectoryDataset, WindowDataset, compute_statistics, generate


@pytest.fixture
def train(finished):
    return TrajectoryDataset(finished, "train")


def test_scales_are_those_of_the_whole_data(train):
    data = torch.stack([train.read(i) for i in range(5)]).double().numpy()
    temperature, flux, change = data[:, :, 0], data[:, :, 1:3], np.diff(data, axis=1)
    found = compute_statistics(train).to_dict()
    expected = {
        "scales": {"temperature": temperature.std(), "flux": np.sqrt((flux**2).mean())},
        "means": {"temperature": temperature.mean()},
        "deltas": {
            "temperature": np.sqrt((change[:, :, 0] ** 2).mean()),
            "flux": np.sqrt((change[:, :, 1:3] ** 2).mean()),
        },
        "parameter_scales": {"wind": float(train.parameters[:, 1:3].square().mean().sqrt()), "conductivity": 0.02},
    }
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-6)


def test_normalised_data_has_unit_scale(train):
    normalization = compute_statistics(train)
    frames = torch.stack([train.read(i) for i in range(5)])
    out = normalization.normalize(frames)
    assert float(out[:, :, 0].mean()) == pytest.approx(0, abs=1e-3)
    assert float(out[:, :, 0].std()) == pytest.approx(1, rel=1e-3)
    assert float(out[:, :, 1:3].square().mean()) == pytest.approx(1, rel=1e-3)
    change = normalization.normalize_delta(frames.diff(dim=1))
    assert float(change[:, :, :1].square().mean()) == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(normalization.denormalize(out), frames, rtol=1e-6, atol=1e-4)
    item = WindowDataset(train, 1, 1)[0]
    assert float(normalization.normalize_parameters(item["parameters"][None])[0, 0]) == pytest.approx(1)


def test_they_are_the_same_every_time_and_for_any_number_of_threads(train):
    one = compute_statistics(train).to_dict()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert compute_statistics(train).to_dict() == one
    finally:
        torch.set_num_threads(threads)


def test_fields_without_variation_get_scale_one(tmp_path):
    recipe = Recipe("advected_heat", {"cells": 4, "conductivity": 0.0, "dt": 1e-30}, {"train": 2}, frames=2)
    found = compute_statistics(TrajectoryDataset(generate(recipe, tmp_path / "d", progress=False), "train")).to_dict()
    assert found["scales"]["flux"] == 1  # zero everywhere
    assert found["deltas"] == {"temperature": 1, "flux": 1}  # nothing moves
    assert found["parameter_scales"]["conductivity"] == 1
    assert found["scales"]["temperature"] == pytest.approx(1, abs=0.4)  # the noise around 300 K


def test_a_single_frame_has_no_changes(tmp_path):
    recipe = Recipe("advected_heat", {"cells": 4}, {"train": 2}, frames=1)
    found = compute_statistics(TrajectoryDataset(generate(recipe, tmp_path / "d", progress=False), "train"))
    assert set(found.deltas.values()) == {1.0}
