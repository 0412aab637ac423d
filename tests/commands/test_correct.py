"""`correct`, and its folder in `rollout` and `tradeoff`."""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from cliffsteer import Surrogate
from cliffsteer.cli import main
from cliffsteer.commands.couplings import make_guards
from cliffsteer.commands.errors import UsageError
from cliffsteer.solvers import create
from cliffsteer.training.termination import terminable

CORRECT = [
    *("correct", "root=data/smoke", "resolution=8", "unroll=2", "checkpoint_every=2", "log_every=2", "seed=3"),
    *("model=resnet", "model.options.hidden_channels=4", "model.options.blocks=[1]", "model.options.kernel_size=3"),
    *("schedule.warmup_steps=1", "optimizer.lr=0.01", "progress=false", "out=runs/correction"),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("correct")
    with contextlib.chdir(folder):
        assert main(["generate", "solver=smoke", "solver.resolution=16", "n=4", "frames=6", "progress=false"]) == 0
        assert main([*CORRECT, "steps=6"]) == 0
    return folder


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


def test_a_correction_is_trained_and_knows_its_solver(here):
    correction = Surrogate.from_pretrained(here / "runs/correction/surrogate")
    assert correction.grid.shape == (8, 8)
    told = correction.training_config["correction"]
    assert told["solver"]["name"] == "smoke"
    assert told["solver"]["options"]["resolution"] == 8
    assert (told["every"], told["unroll"], told["seed"]) == (1, 2, 3)
    assert correction.metrics["steps"] == 5
    assert correction.metrics["corrected"] > 0 < correction.metrics["solver"]
    assert list((here / "runs/correction/tensorboard").glob("events*"))


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(here, monkeypatch, capsys):
    from cliffsteer.coupling.correction_training import CorrectionTraining

    advance = CorrectionTraining.advance

    def interrupted(training):
        if training.step == 5:
            raise KeyboardInterrupt
        return advance(training)

    words = [*CORRECT, "steps=6", "out=runs/again"]
    monkeypatch.setattr(CorrectionTraining, "advance", interrupted)
    assert main(words) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert not (here / "runs/again/surrogate").exists()
    monkeypatch.setattr(CorrectionTraining, "advance", advance)
    last = here / "runs/again/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["training"]["step"] == 5  # written at the interrupt, not only every 2
    assert main([*words, "name=renamed"]) == 0
    first, second = (Surrogate.from_pretrained(here / f"runs/{name}/surrogate") for name in ("correction", "again"))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=0)
    assert main([*words, "unroll=3"]) == 2
    assert "holds a correction with `unroll` 2, this one has 3" in capsys.readouterr().err
    assert main([*words, "model.options.kernel_size=5"]) == 2
    assert "holds a correction with `model.options.kernel_size` 3, this one has 5: give" in capsys.readouterr().err
    assert main([*words, "resume=false"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    (here / "runs/again/checkpoints/last.ckpt").write_bytes(b"half")
    assert main(words) == 2
    assert "is damaged or no checkpoint of a correction" in capsys.readouterr().err


def test_a_signal_ends_a_training_with_a_line(caplog):
    def terminated():
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)  # it comes before

    with caplog.at_level("WARNING"), pytest.raises(SystemExit) as stopped:
        terminated()
    assert stopped.value.code == 143
    assert "Terminated. What is written stays" in caplog.text


def test_a_correction_is_rolled_out_on_its_grid(here, capsys):
    assert main(["rollout", "run=runs/correction", "coupling=correct", "steps=3", "out=rolled"]) == 0
    assert "3 frames (correct)" in capsys.readouterr().out
    assert main(["rollout", "run=runs/correction", "steps=3"]) == 2
    assert "holds a correction of a solver, which steps with coupling=correct only" in capsys.readouterr().err


def test_a_correction_is_nothing_that_steps_by_itself(here, capsys):
    for words in (["calibrate"], ["evaluate"]):
        assert main([*words, "run=runs/correction"]) == 2
        told = capsys.readouterr().err
        assert "`run` (=runs/correction) holds a correction of a solver, which makes no step by itself: give" in told
        assert "`cliffsteer tradeoff run=runs/correction couplings=[correct]` measures a correction" in told
    correction = Surrogate.from_pretrained("runs/correction/surrogate")
    with pytest.raises(UsageError, match=r"`ensemble` \(=runs/correction\) holds a correction of a solver"):
        make_guards([{"kind": "disagreement", "runs": ["runs/correction"]}], correction, None, "cpu")


def test_a_tradeoff_says_how_much_of_the_gap_it_closes(here, capsys):
    words = ["tradeoff", "run=runs/correction", "couplings=[correct]", "steps=2", "trajectories=1", "repeats=1"]
    assert main(words) == 0
    assert " of that between its solver and 'solver, 16 cells', of twice the cells" in capsys.readouterr().out
    content = json.loads((here / "runs/correction/tradeoff/tradeoff.json").read_text())
    assert content["facts"]["reference"] == "smoke with 32 x 32 cells"  # twice the dataset's
    assert [(gap["finer"], gap["twice"]) for gap in content["gap_closed"]] == [("solver, 16 cells", True)]
    points = {p["label"]: p for p in content["points"]}
    alone, native = points["solver of correct, alone"], points["solver, 8 cells"]
    assert alone["error"] == pytest.approx(native["error"])
    assert points["correct"]["shape"] == [8, 8]
    assert points["correct"]["error"] != alone["error"]
    assert main([*words, "resolutions=[4,8]"]) == 0
    assert "no solver of twice the cells was measured: add 16 to `resolutions`" in capsys.readouterr().out


def test_the_solver_of_a_correction_has_options_of_its_own(here):
    shutil.copytree("data/smoke", "data/phiflow")
    manifest = json.loads(Path("data/phiflow/dataset.json").read_text())
    manifest["recipe"]["solver"] = "smoke_phiflow"
    manifest["recipe"]["options"]["tolerance"] = 1e-4
    Path("data/phiflow/dataset.json").write_text(json.dumps(manifest))
    assert main([*CORRECT, "steps=1", "root=data/phiflow", "out=runs/phiflow"]) == 0
    told = Surrogate.from_pretrained(here / "runs/phiflow/surrogate").training_config["correction"]["solver"]
    assert told["name"] == "smoke"
    assert create(told["name"], **told["options"]).grid.shape == (8, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resolution=16"], "take a coarser one, or the dataset of a finer solver"),
        (["resolution=7"], "with walls, one must be the other times a whole number"),
        (["unroll=6"], "Windows of 1 + 6 frames are needed, but the trajectories have 6"),
        (["unroll=0"], "`unroll` (=0) must be at least 1"),
        (["gradient_clip=nan"], "`gradient_clip` (=nan) must be at least 0"),
        (["options={dt: 0.25}"], "`options` change the time step to 0.25"),
        (["optimizer.lr=1e30", "steps=9", "out=runs/x"], "Training diverged: the solver cannot go on from"),
        (["out=data/smoke"], "holds a dataset"),
        (["resolutoin=8"], "did you mean 'resolution'?"),
    ],
)
def test_faulty_command_lines_end_in_one_line(here, capsys, words, message):
    assert main([*CORRECT, *words]) == 2
    assert message in capsys.readouterr().err
