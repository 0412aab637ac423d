"""``cliffsteer compare`` on real runs."""

import csv
import io
import json

import pytest

from cliffsteer import Surrogate
from cliffsteer.cli import main


def test_runs_are_plain_words_and_their_numbers_are_in_the_table(here, capsys):
    (here / "runs/other").mkdir()  # a glob meets folders that are no runs
    assert main(["compare", "runs/csresnet-0", "runs/other", "runs/csresnet-1", "title=Two seeds"]) == 0
    shown = capsys.readouterr()
    assert "runs/other is no evaluated run, left out" in shown.err
    assert "| csresnet | 2 |" in shown.out
    metrics = [json.loads((here / f"runs/csresnet-{seed}/metrics.json").read_text()) for seed in (0, 1)]
    (row,) = csv.DictReader(io.StringIO((here / "runs/compare/table.csv").read_text()))
    errors = [m["rollout"]["model"]["overall"]["nrmse"][-1] for m in metrics]
    assert float(row["rollout_nrmse"]) == pytest.approx(sum(errors) / 2)
    assert float(row["rollout_nrmse_error"]) == pytest.approx(abs(errors[0] - errors[1]) / 2)
    assert float(row["flops"]) == metrics[0]["cost"]["flops"] > 1000
    assert float(row["training_trajectories"]) == 2
    assert float(row["training_seconds"]) > 0
    assert "<title>Two seeds</title>" in (here / "runs/compare/compare.html").read_text()


def test_runs_may_be_a_key_and_paths_may_hold_equals_signs(here, capsys):
    (here / "runs/csresnet-0").rename(here / "runs/trainer.seed=0")
    assert main(["compare", "runs/trainer.seed=0", "out=compared"]) == 0
    assert main(["compare", "runs=[runs/csresnet-1]", "out=compared"]) == 0
    assert "| csresnet-1 | 1 |" in capsys.readouterr().out
    assert (here / "compared/table.md").is_file()


def test_metrics_of_other_weights_are_not_compared(here, capsys):
    model = Surrogate.from_pretrained(here / "runs/csresnet-0/surrogate")
    next(model.network.parameters()).add_(1e-3)
    model.save_pretrained(here / "runs/csresnet-0/surrogate")
    for words in (
        ["compare", "runs/csresnet-0", "out=compared"],
        ["report", "runs=[runs/csresnet-0]", "out=page.html"],
    ):
        assert main(words) == 2
        assert "runs/csresnet-0 has other weights than those that were evaluated" in capsys.readouterr().err
    assert not (here / "compared").exists()
    assert not (here / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`runs` holds no evaluated run: give some"),
        (["runs"], "`runs` holds no evaluated run: give some"),
        (["runs/none"], "`runs`: runs/none does not exist"),
        (["titel=x"], "`titel` is not a key of `cliffsteer compare`: did you mean 'title'?"),
    ],
)
def test_faults(evaluated, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(evaluated)
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (evaluated / "runs/compare").exists()
