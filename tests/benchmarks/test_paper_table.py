"""Tables of the published experiments: errors, amounts of data, what papers print."""

import csv
import json
import math

import pytest
from paper_table import (
    PAPERS,
    Result,
    data_efficiency,
    markdown,
    mean_square,
    published_errors,
    read_published,
    read_result,
    rollout_error,
    rows,
)
from tables import Ratio, write_csv

COMPONENTS = {"density": 1, "velocity": 2}


def metrics(density: float | None = 1.0, velocity: float | None = 4.0, boosted: float | None = None) -> dict:
    def part(factor: float = 1.0) -> dict:
        fields = {"density": density, "velocity": velocity}
        return {
            "model": {
                "fields": {name: {"mse": [e and e * factor, 9.0]} for name, e in fields.items()},
                "overall": {"nrmse": [0.1, 0.5]},
            }
        }

    found = {"one_step": part(), "rollout": part() | {"steps": 2}, "weights": 1000}
    found |= {"rotated": {"one_step": part(2.0)}, "training": {"seconds": 10.0}}
    found |= {"cost": {"samples_per_second": 500.0}}
    return found | ({"boosted": {"one_step": part(boosted)}} if boosted else {})


def result(network: str, size: int | None, error: float, **options) -> Result:
    return Result(network, size, metrics(error, error, **options), COMPONENTS)


def test_the_error_is_the_mean_over_all_components_alike():
    found = Result("ResNet", 8, metrics(1.0, 4.0), COMPONENTS)
    assert mean_square(found, "one_step") == pytest.approx((1.0 + 2 * 4.0) / 3)
    assert mean_square(found, "rotated", "one_step") == pytest.approx(2 * (1.0 + 2 * 4.0) / 3)
    assert mean_square(found, "boosted", "one_step") is None
    assert rollout_error(found) == 0.5


def test_a_field_that_diverged_has_no_error():
    assert mean_square(Result("ResNet", 8, metrics(velocity=None), COMPONENTS), "one_step") is None
    table = rows([result("ResNet", 8, 1.0), Result("ResNet", 8, metrics(velocity=None), COMPONENTS)])
    assert table[0]["mse"] is None


def test_components_are_read_from_the_surrogate(tmp_path):
    fields = [{"name": "faraday", "grade": 2, "role": "dynamic"}, {"name": "mass", "grade": 0, "role": "parameter"}]
    (tmp_path / "surrogate").mkdir()
    config = {"spec": {"signature": [1, -1, -1, -1], "fields": fields}}
    (tmp_path / "surrogate" / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics()))
    found = read_result(tmp_path, "ResNet", 8)
    assert found.components == {"faraday": 6}
    assert found.metrics["weights"] == 1000


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("factor", [1.0, 2.5, 64.0])
def test_amounts_of_data_follow_a_power_law_exactly(exponent, factor):
    curve = {n: 3.0 * n**-exponent for n in (8, 32, 1024)}
    ratio = data_efficiency(3.0 * (8 * factor) ** -exponent, 8, curve)
    assert ratio.bound == ""
    assert ratio.value == pytest.approx(factor)


def test_amounts_of_data_are_not_extrapolated():
    curve = {8: 0.4, 32: 0.1}
    assert data_efficiency(0.05, 8, curve) == Ratio(4.0, ">")
    assert data_efficiency(0.5, 8, curve) == Ratio(1.0, "<")
    assert str(data_efficiency(0.05, 8, curve)) == "more than 4"
    assert data_efficiency(0.1, 8, curve) == Ratio(4.0)


def test_the_first_size_at_which_the_baseline_is_as_good_counts():
    curve = {8: 0.4, 32: 0.1, 64: 0.2, 128: 0.05}
    assert data_efficiency(0.2, 8, curve).value == pytest.approx(2.0)
    assert data_efficiency(0.3, 8, {8: 0.2, 16: 0.4}).bound == "<"


def test_without_a_baseline_there_is_no_ratio():
    with pytest.raises(ValueError, match="`curve` is empty"):
        data_efficiency(0.1, 8, {})
    row = rows([result("FNO", 8, 1.0)])[0]
    assert row["data"] is None
    assert row["over_baseline"] is None


def test_rows_hold_means_over_seeds_and_ratios_to_the_baseline():
    runs = [result("ResNet", 8, e) for e in (3.0, 5.0)] + [result("ResNet", 32, 1.0), result("CS-ResNet", 8, 2.0)]
    steerable, first, _ = rows(runs)
    assert (first["seeds"], first["mse"].mean, first["mse"].error) == (2, 4.0, 1.0)
    assert (steerable["over_baseline"], steerable["data"]) == (0.5, Ratio(pytest.approx(2.0)))
    assert steerable["milliseconds"].mean == 2.0


def test_printed_errors_stand_beside_the_papers_own_tier_only():
    runs = [result("CS-ResNet", 64, 1.0)]
    assert rows(runs, "ns64", "full")[0]["published"] == 2.62e-3
    assert rows(runs, "ns64", "small")[0]["published"] is None


def test_printed_errors_are_complete():
    for task in ("ns64", "maxwell3d", "maxwell_r12"):
        assert read_published(task)["task"]
        printed = list(published_errors(task))
        assert {network for _, network, _, _ in printed} >= {"CS-ResNet", "ResNet"}
        assert all(paper in PAPERS and error > 0 for paper, _, _, error in printed)
    assert not list(published_errors("minkowski"))


def test_pages_leave_out_what_was_not_measured():
    plain = markdown(rows([result("ResNet", 8, 1.0)]), "ns64", "About.")
    assert "| network | trajectories | seeds | one-step MSE | over ResNet |" in plain
    assert "boosted" not in plain
    assert "| CS-ResNet | 64 | 0.00262 | 0.57 |" in plain
    assert "| ResNet | 8 | 1 | 1 | 1 | 1 | 0.5 | 2 | 3 | 1,000 | 10 | 2 |" in markdown(
        rows([result("ResNet", 8, 1.0, boosted=3.0)]), "minkowski", "About."
    )


def test_numbers_are_written_as_numbers(tmp_path):
    path = tmp_path / "paper.csv"
    write_csv(rows([result("ResNet", 8, e) for e in (3.0, 5.0)] + [result("CS-ResNet", 8, 2.0)]), path)
    second, first = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    assert (float(first["mse"]), float(first["mse_error"])) == (4.0, 1.0)
    assert (second["mse_error"], second["data_bound"], float(second["data"])) == ("", ">", 1.0)
    assert math.isclose(float(second["over_baseline"]), 0.5)
