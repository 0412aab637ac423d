"""``cliffsteer evaluate`` writes metrics and a page, and says how to measure the same again."""

import json
import shlex

from cliffsteer.cli import main


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
