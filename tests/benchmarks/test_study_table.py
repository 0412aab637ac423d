"""Tables of studies, from result files."""

import json

import pytest
from study_table import markdown, rows
from tables import read_csv, write_csv


def write_run(folder, one_step, rollout, weights=1000):
    """metrics.json of a run, as far as the table reads it."""
    fields = lambda *values: {"fields": {"u": {"nrmse": list(values)}}}  # noqa: E731
    still = fields(0.5), fields(0.5, 0.9)
    metrics = {
        "weights": weights,
        "one_step": {"model": fields(one_step), "persistence": still[0]},
        "rollout": {"model": fields(*rollout), "persistence": still[1], "steps": 2},
        "equivariance": {"relative_error": 1e-15},
        "cost": {"flops": 2.0e6},
        "training": {"seconds": 3.0},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_the_table_has_mean_and_standard_error_over_seeds_and_persistence_last(tmp_path):
    write_run(tmp_path / "net-seed0", 0.10, (0.11, 0.2))
    write_run(tmp_path / "net-seed1", 0.20, (0.22, 0.4))
    write_run(tmp_path / "best-seed0", 0.05, (0.05, 0.1))
    lines = markdown(rows(tmp_path, [1, 2])).splitlines()
    assert lines[2] == "| best | 1 | 1,000 | 2 | 0.050 | 0.100 | rounding | 3 |"
    assert lines[3] == "| net | 2 | 1,000 | 2 | 0.150 ± 0.050 | 0.300 ± 0.100 | rounding | 3 |"
    assert lines[4] == "| persistence |  | 0 | 0 | 0.500 | 0.900 | 0 |  |"
    write_csv(rows(tmp_path, [1, 2]), tmp_path / "table.csv")
    assert markdown(read_csv(tmp_path / "table.csv")).splitlines() == lines


def test_sizes_are_a_column(tmp_path):
    write_run(tmp_path / "net-n16-seed0", 0.1, (0.1, 0.2))
    write_run(tmp_path / "net-n4-seed0", 0.3, (0.3, 0.4))
    lines = markdown(rows(tmp_path, [1])).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| net", "4"], ["| net", "16"]]


def test_a_rollout_that_diverged_has_no_error_and_stands_last(tmp_path):
    write_run(tmp_path / "bad-seed0", 0.01, (0.1, None))
    write_run(tmp_path / "good-seed0", 0.5, (0.1, 0.2))
    assert [row["network"] for row in rows(tmp_path, [2, 1])] == ["good", "bad", "persistence"]
    assert markdown(rows(tmp_path, [1, 2])).splitlines()[2] == "| bad | 1 | 1,000 | 2 | 0.010 |  | rounding | 3 |"


def test_the_order_is_that_of_means_over_seeds(tmp_path):
    for name, errors in {"a": (0.1, 0.5), "b": (0.2, 0.2)}.items():
        for seed, error in enumerate(errors):
            write_run(tmp_path / f"{name}-seed{seed}", error, (error, error))
    assert [row["network"] for row in rows(tmp_path, [1])] == ["b", "a", "persistence"]


@pytest.mark.parametrize("steps", [[1, 3], [0], [-1]])
def test_steps_that_no_rollout_has_are_refused(tmp_path, steps):
    write_run(tmp_path / "net-seed0", 0.1, (0.1, 0.2))
    with pytest.raises(SystemExit, match="must be from 1 to 2"):
        rows(tmp_path, steps)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(SystemExit, match="There are no evaluated runs"):
        rows(tmp_path, [1])
