"""A published run carries its metrics and its card, and measures the same in another process."""

import json
import re
import subprocess
import sys

import pytest

from cliffsteer import Surrogate
from cliffsteer.cli import main
from cliffsteer.model_card import MARK


@pytest.fixture
def published(here):
    assert main(["publish", "run=runs/csresnet-0", "out=published"]) == 0
    return here / "published"


def test_the_folder_holds_all_that_is_needed(here, published):
    assert {path.name for path in published.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    metrics = json.loads((here / "runs/csresnet-0/metrics.json").read_text())
    loaded = Surrogate.from_pretrained(published)
    assert loaded.metrics == metrics
    assert loaded.training_config["trainer"]["steps"] == 4


def test_metrics_of_other_weights_are_not_published(here, capsys):
    model = Surrogate.from_pretrained(here / "runs/csresnet-0/surrogate")
    next(model.network.parameters()).add_(1e-3)
    model.save_pretrained(here / "runs/csresnet-0/surrogate")
    assert main(["publish", "run=runs/csresnet-0", "out=published"]) == 2
    shown = capsys.readouterr().err
    assert "runs/csresnet-0 has other weights than those that were evaluated: `cliffsteer evaluate run=" in shown
    assert not (here / "published").exists()


def test_the_card_says_what_was_measured_and_how(published):
    card, metrics = (published / "README.md").read_text(), Surrogate.from_pretrained(published).metrics
    assert card.startswith("---\nlibrary_name: cliffsteer\n")
    assert MARK in card
    assert "# csresnet for smoke" in card
    for text in (
        "∂ₜu + (u·∇)u",
        "| velocity | 1 (vector) | m/s | dynamic |",
        "| x | 12 | ",
        "Time step: 1.5 s",
        "## Limits",
    ):
        assert text in card
    assert "cliffsteer generate '~recipe' solver=smoke ++solver.resolution=12" in card
    assert metrics["command"] in card
    model, still = (metrics["rollout"][who]["fields"]["velocity"] for who in ("model", "persistence"))
    numbers = (model["nrmse"][-1], model["vrmse"][-1], still["nrmse"][-1])
    assert "| velocity | 3 steps | {:.4g} | {:.4g} | {:.4g} |".format(*numbers) in card
    assert "Trained on 2 trajectories" in card
    assert "It keeps the 8 symmetries of its grid" in card


def test_the_metrics_of_the_card_come_out_again_in_a_fresh_process(here, published):
    code = "import sys; from cliffsteer.cli import main; sys.exit(main())"
    (here / "runs").rename(here / "gone")  # nothing but the folder and the data is needed
    (here / "data").rename(here / "elsewhere")
    command = [sys.executable, "-c", code, "verify", "run=published", "root=elsewhere/smoke", "tolerance=1e-6"]
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "has the metrics that it was published with" in result.stdout


def test_other_metrics_are_told(published, capsys):
    path = published / "config.json"
    config = json.loads(path.read_text())
    values = config["metrics"]["one_step"]["model"]["fields"]["density"]["nrmse"]
    values[0] *= 1.01
    path.write_text(json.dumps(config))
    assert main(["verify", f"run={published}"]) == 2
    shown = capsys.readouterr()
    assert re.search(r"^one_step.model.fields.density.nrmse.0: 0\.\d+ before, 0\.\d+ now$", shown.out, re.MULTILINE)
    assert "1 metric(s) differ by more than 0.0001" in shown.err
    assert main(["verify", f"run={published}", "tolerance=0.1"]) == 0


def test_a_card_that_was_taken_over_stays(published):
    card = published / "README.md"
    card.write_text(card.read_text().replace(MARK, "") + "Ours.")
    assert main(["publish", "run=runs/csresnet-1", "out=published"]) == 0
    assert card.read_text().endswith("Ours.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["publish", "run=runs/none"], "`run` (=runs/none) does not exist"),
        (["publish", "run=runs/csresnet-0", "out=runs/csresnet-0"], "`out` (=runs/csresnet-0) is the run itself"),
        (["verify", "run=runs/csresnet-0"], "was saved without the metrics of an evaluation"),
        (["verify"], "`root` is missing: give it as `cliffsteer verify root=...`"),
    ],
)
def test_faults(evaluated, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(evaluated)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_run_must_be_evaluated_first(here, capsys):
    (here / "runs/csresnet-0/metrics.json").unlink()
    assert main(["publish", "run=runs/csresnet-0"]) == 2
    assert "`cliffsteer evaluate run=runs/csresnet-0` makes it" in capsys.readouterr().err
