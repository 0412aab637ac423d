"""Comparisons of made-up metrics: who is grouped with whom, and whether the numbers in table and plots are theirs."""

import copy
import csv
import io
import re

import pytest

from cliffsteer import comparison
from cliffsteer.comparison import Run, group_runs
from cliffsteer.comparison_plots import cost_figure, data_figure, rollout_figure
from cliffsteer.comparison_table import columns, markdown, write_comparison

CONFIG = {
    "data": {"root": "data/a", "history": 1, "workers": 0},
    "model": {"name": "csresnet", "options": {"hidden_channels": 2}},
    "optimizer": {"lr": 0.001},
    "trainer": {"seed": 0, "steps": 10, "devices": 1, "progress": True},
}


def errors(value, steps=1):
    per_field = {"nrmse": [value * (k + 1) for k in range(steps)], "vrmse": [2 * value * (k + 1) for k in range(steps)]}
    return {"overall": per_field, "fields": {"phi": per_field, "v": per_field}}


def metrics(value, train=8):
    recipe = {"solver": "wave", "options": {}, "splits": {"train": train}, "frames": 9, "seed": 0}
    data = {"split": "test", "trajectories": 2, "frames": 9, "windows": 16, "history": 1, "dt": 0.5, "recipe": recipe}
    fields = {name: {"time_0.8": 1.0} for name in ("phi", "v")}
    return {
        "dataset": data | {"time_unit": "s"},
        "settings": {"history": 1, "rollout_steps": 3, "stride": 1, "rollout_stride": 3, "rotated": "one"},
        "weights": 1234,
        "one_step": {"model": errors(value), "persistence": errors(1.0)},
        "rollout": {
            "steps": 3,
            "model": errors(value, 3),
            "persistence": errors(1.0, 3),
            "correlation": {"fields": fields},
            "stable": {"steps": 2.5},
        },
        "rotated": {"one_step": {"model": errors(2 * value)}, "rollout": {"model": errors(2 * value, 3)}},
        "equivariance": {"relative_error": 1e-15},
        "cost": {"flops": 2_500_000, "samples_per_second": 50.0, "device": "CPU", "threads": 1, "batch_size": 4},
        "training": {"seconds": 100 * value, "trajectories": train},
    }


def run(name, value, seed=0, model="csresnet", train=8, **changes):
    config = copy.deepcopy(CONFIG)
    config["trainer"]["seed"] = seed
    config["data"]["root"] = f"data/{train}"
    config["model"]["name"] = model
    for key, change in changes.items():
        config[key] |= change
    return Run(name, metrics(value, train), {"name": model, "hidden_channels": 2}, config)


RUNS = [
    *(run(f"cs-seed={seed}", value, seed) for seed, value in enumerate((0.1, 0.2, 0.3))),
    *(run(f"plain_{seed}", value, seed, "resnet") for seed, value in enumerate((0.4, 0.5))),
    run("cs-less", 0.6, 0, train=2),
]


def test_runs_that_differ_in_seed_alone_are_one_group():
    groups = group_runs(RUNS)
    assert [(g.label, len(g.runs), g.series) for g in groups] == [
        ("cs", 3, "cs"),
        ("plain", 2, "plain"),
        ("cs-less", 1, "cs"),
    ]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"trainer": {"progress": False, "devices": 2, "seed": 5}, "data": {"workers": 4}}, 1),
        ({"trainer": {"steps": 11}}, 2),
        ({"optimizer": {"lr": 0.1}}, 2),
        ({"data": {"root": "data/b"}}, 2),
    ],
)
def test_what_makes_another_group(changes, count):
    assert len(group_runs([run("a", 0.1), run("b", 0.2, **changes)])) == count


def test_labels_are_unique_and_runs_without_a_config_stand_alone():
    same = [run("x", 0.1), run("x", 0.1, optimizer={"lr": 1.0}), Run("x", metrics(0.1), {"name": "resnet"})]
    assert [g.label for g in group_runs(same)] == ["x", "x (2)", "x (3)"]


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match=r"cs-seed=1 and copy are one training with one seed \(1\)"):
        group_runs([*RUNS, run("copy", 0.2, 1, trainer={"devices": 2})])


def test_runs_that_were_evaluated_differently_are_refused():
    for change, message in (
        (
            {"dataset": RUNS[0].metrics["dataset"] | {"windows": 3}},
            "other was evaluated with windows 3, cs-seed=0 with",
        ),
        ({"settings": RUNS[0].metrics["settings"] | {"rollout_steps": 2}}, "evaluated with settings"),
    ):
        other = Run("other", RUNS[0].metrics | change, RUNS[0].model, RUNS[0].config)
        with pytest.raises(ValueError, match=message):
            group_runs([RUNS[0], other])
    data = RUNS[0].metrics["dataset"]
    seed = RUNS[0].metrics | {"dataset": data | {"recipe": data["recipe"] | {"seed": 1}}}
    with pytest.raises(ValueError, match="evaluated with recipe"):
        group_runs([RUNS[0], Run("other", seed, RUNS[0].model)])
    turned = {
        key: RUNS[0].metrics | {"settings": RUNS[0].metrics["settings"] | {"rotated": key}} for key in ("all", "none")
    }
    group_runs([RUNS[0], Run("not turned", turned["none"], RUNS[0].model)])
    with pytest.raises(ValueError, match=r"different ways \(cs-seed=0 with rotated one, other with rotated all\)"):
        group_runs([RUNS[0], Run("other", turned["all"], RUNS[0].model)])
    old = {key: value for key, value in RUNS[0].metrics.items() if key != "settings"}
    with pytest.raises(ValueError, match="older cliffsteer"):
        group_runs([Run("old", old, RUNS[0].model)])
    with pytest.raises(ValueError, match="`runs` is empty"):
        group_runs([])


def test_the_table_holds_mean_error_and_interval():
    groups = group_runs(RUNS)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown(groups, columns(RUNS[0].metrics)).splitlines()
    ]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    assert [row["network"] for row in rows] == ["cs", "plain", "cs-less", "persistence"]
    assert rows[0]["NRMSE, one step"] == "0.2000 ± 0.0577 [0.0000, 0.4484]"
    assert rows[0]["NRMSE, 3 steps"].startswith("0.6000 ± 0.1732")
    assert rows[0]["NRMSE rotated, one step"].startswith("0.4000 ± 0.1155")
    assert rows[0]["weights"] == "1,234"
    assert (rows[0]["samples/s"], rows[0]["training, s"]) == ("50", "20")  # of the machine, not of the seeds
    assert rows[0]["FLOPs a sample"] == "2.5 M"
    assert rows[2]["NRMSE, one step"] == "0.6000"
    assert rows[3]["VRMSE, 3 steps"] == "6.0000"
    assert rows[3]["weights"] == "–"


def test_a_diverged_run_leaves_no_mean():
    broken = run("cs-seed=9", 0.1, 9)
    broken.metrics["rollout"]["model"]["overall"]["nrmse"][-1] = None
    (group,) = group_runs([RUNS[0], broken])
    assert group.estimate(comparison.error("rollout")) is None
    assert group.estimate(comparison.error("one_step")).mean == pytest.approx(0.1)
    rollout_figure([group], 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_comparison(RUNS, tmp_path_factory.mktemp("compare") / "out", "A & B").parent


def test_files(folder):
    assert {path.name for path in folder.iterdir()} == {
        *("table.md", "table.csv", "runs.csv", "compare.html"),
        *("rollouts.png", "error_versus_cost.png", "error_versus_data.png"),
    }
    rows, single = (
        list(csv.DictReader(io.StringIO((folder / name).read_text(encoding="utf-8"))))
        for name in ("table.csv", "runs.csv")
    )
    assert float(rows[0]["one_step_nrmse"]) == pytest.approx(0.2)
    assert float(rows[0]["one_step_nrmse_high"]) - 0.2 == pytest.approx(
        4.3026527 * float(rows[0]["one_step_nrmse_error"])
    )
    assert rows[2]["one_step_nrmse_error"] == ""
    assert [(row["run"], row["seed"], row["training_trajectories"]) for row in single][2:4] == [
        ("cs-seed=2", "2", "8"),
        ("plain_0", "0", "8"),
    ]
    assert "single seed has no interval" in (folder / "table.md").read_text(encoding="utf-8")


def test_the_page_is_one_file_without_links(folder):
    page = (folder / "compare.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<title>A &amp; B</title>" in page
    assert "cs-seed=1 (seed 1)" in page
    assert page.count("data:image/png") == 3


def test_plots_show_the_groups():
    groups = group_runs(RUNS)
    cost = cost_figure(groups)
    assert len(cost.axes) == 4
    point = cost.axes[1].containers[0][0]  # mean time and mean error of the first group
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((20.0, 0.2))
    data = data_figure(groups)
    steerable = next(line for line in data.axes[0].lines if len(line.get_xdata()) == 2)
    assert list(steerable.get_xdata()) == [2, 8]
    assert list(steerable.get_ydata()) == pytest.approx([0.6, 0.2])
    rollouts = rollout_figure(groups, 0.5)
    assert list(rollouts.axes[0].lines[0].get_xdata()) == [0.5, 1.0, 1.5]
    assert len(rollouts.axes[0].collections) == 3


def test_plots_of_what_is_not_known_are_left_out(tmp_path):
    known = metrics(0.1)
    few = {key: known[key] for key in ("dataset", "settings", "one_step")}
    runs = [Run("x", few, {"name": "resnet"})]
    groups = group_runs(runs)
    assert cost_figure(groups) is None
    assert data_figure(groups) is None
    assert rollout_figure(groups, 0.5) is None
    page = write_comparison(runs, tmp_path / "out")
    assert sorted(path.name for path in page.parent.iterdir()) == ["compare.html", "runs.csv", "table.csv", "table.md"]
