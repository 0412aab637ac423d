"""``cliffsteer evaluate`` writes metrics and a page, and says how to measure the same again."""

import json
import re
import shlex

import pytest

from cliffsteer import Surrogate
from cliffsteer.cli import main
from cliffsteer.commands.coarse import coarse_solvers
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.runs import load_surrogate
from cliffsteer.datasets import Recipe, TrajectoryDataset, compute_statistics, generate


def test_metrics_page_and_command(evaluated):
    run = evaluated / "runs/csresnet-1"
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"one_step", "rollout", "rotated", "equivariance", "cost", "training", "settings"} <= set(metrics)
    page = (run / "report.html").read_text()
    assert "<title>csresnet-1</title>" in page
    assert "How long rollouts last" in page
    assert metrics["command"] in page
    assert not (evaluated / "runs/csresnet-0/report.html").exists()


def test_the_command_measures_the_same_again_and_options_reach_the_metrics(here, capsys):
    (here / "runs/csresnet-0").rename(here / "runs/trainer.seed=0")  # as a sweep names it
    path, run = here / "runs/trainer.seed=0/metrics.json", "run='runs/trainer.seed=0'"
    before = json.loads(path.read_text())
    assert main(["evaluate", run, "steps=3", "report=false"]) == 0
    first = json.loads(path.read_text())
    path.unlink()
    assert main([*shlex.split(first["command"])[1:], "report=false"]) == 0
    again = json.loads(path.read_text())
    for part in ("one_step", "rollout", "rotated", "dataset", "settings"):
        assert again[part] == first[part] == before[part]
    assert main(["evaluate", run, "steps=0", "rotated=none", "report=false"]) == 0
    assert not {"rotated", "rollout"} & set(json.loads(path.read_text()))
    capsys.readouterr()
    assert main(["evaluate", run, "boosted=data/smoke"]) == 2
    assert "`boosted` needs a grid with an axis of time" in capsys.readouterr().err
    assert main(["evaluate", run, "rotated=some"]) == 2
    assert "`rotated` (='some') must be one of" in capsys.readouterr().err


def test_data_of_another_system_are_refused_by_the_names_that_were_given(evaluated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(evaluated)
    for recipe, told in (
        (Recipe("wave", {"resolution": 12}, {"test": 1}, frames=4, batch=1), "the fields phi"),
        (Recipe("smoke", {"resolution": 8}, {"test": 1}, frames=4, batch=1), "the grid Grid"),
        (Recipe("smoke", {"resolution": 12, "dt": 1.0}, {"test": 1}, frames=4, batch=1), "the time step 1 s"),
    ):
        root = generate(recipe, tmp_path / told.replace(" ", "-"), progress=False, card=False)
        assert main(["evaluate", "run=runs/csresnet-0", f"root={root}"]) == 2
        line = capsys.readouterr().err
        assert f"`root` (={root}) holds data with {told}" in line
        assert "but `run` (=runs/csresnet-0) is for" in line


def test_coarse_solvers_stand_beside_persistence_with_their_time(here, capsys):
    run, path = "run=runs/csresnet-0", here / "runs/csresnet-0/metrics.json"
    assert main(["evaluate", run, "steps=2", "coarse=[3,2,1]"]) == 0
    shown, metrics = capsys.readouterr().out, json.loads(path.read_text())
    assert re.search(
        r"solver with 4 x 4 cells, overall: one step [\d.]+, 2 steps [\d.]+, at .* of the network's", shown
    )
    assert metrics["cost"]["coarse"]["3"]["cells"] == [4, 4]
    assert metrics["cost"]["solver"]["cells"] == [12, 12]
    assert all(price["seconds_per_frame"] > 0 for price in (metrics["cost"], *metrics["cost"]["coarse"].values()))
    for part in ("one_step", "rollout"):
        nrmse = [metrics[part]["coarse"][factor]["overall"]["nrmse"][-1] for factor in ("1", "2", "3")]
        assert nrmse == sorted(nrmse)
        assert nrmse[0] < 1e-4 < nrmse[1]  # the solver of the data itself
    assert shlex.split(metrics["command"])[-1] == "coarse=[3,2,1]"
    assert re.search("<td>solver with 4 × 4 cells</td>.*<td>–</td>", (path.parent / "report.html").read_text())
    assert main(["evaluate", "run=runs/csresnet-1", "steps=2", "report=false"]) == 0
    assert main(["compare", "runs/csresnet-0", "runs/csresnet-1"]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    row = dict(zip(lines[0], next(line for line in lines if line[0] == "solver with 4 × 4 cells"), strict=True))
    assert row["NRMSE, one step"] == f"{metrics['one_step']['coarse']['3']['overall']['nrmse'][0]:.4f}"
    assert row["s a frame"] == f"{metrics['cost']['coarse']['3']['seconds_per_frame']:.1e}"
    assert row["weights"] == "–"


def test_the_coarse_solver_of_equal_cost_is_the_finest_that_is_no_dearer(evaluated):
    surrogate = load_surrogate(evaluated / "runs/csresnet-0")
    data = TrajectoryDataset(evaluated / "data/smoke", "test")
    assert list(coarse_solvers("auto", surrogate, data, 2, seconds=1e9)) == [2]
    assert list(coarse_solvers("auto", surrogate, data, 2, seconds=0.0)) == [3]  # the coarsest that it runs on


@pytest.mark.parametrize(
    ("coarse", "message"),
    [
        ("most", "`coarse` (=most) must be 'auto' or factors"),
        ("[2,0]", "`coarse` (=[2, 0]) must be 'auto' or factors"),
        ("5", "`coarse` (=5) must divide all sides of the grid of the data, (12, 12)"),
    ],
)
def test_coarse_solvers_must_fit(evaluated, monkeypatch, capsys, coarse, message):
    monkeypatch.chdir(evaluated)
    assert main(["evaluate", "run=runs/csresnet-0", f"coarse={coarse}"]) == 2
    assert message in capsys.readouterr().err


def test_solvers_that_frames_do_not_start_say_so(tmp_path):
    recipe = Recipe("maxwell2d", {"resolution": 8, "block": 4, "pairs": 1}, {"test": 1}, frames=3, batch=1)
    data = TrajectoryDataset(generate(recipe, tmp_path / "d", progress=False, card=False), "test")
    model = {"name": "resnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(model, data.spec, data.grid, data.dt, 1, 1, compute_statistics(data))
    for asked in ([2], "auto"):
        with pytest.raises(UsageError, match=r"`coarse` \(=2\): the solver 'maxwell2d' of the data cannot be run on"):
            coarse_solvers(asked, surrogate, data, 1, 1.0)
