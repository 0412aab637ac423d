"""`calibrate`, `rollout coupling=guarded` and `tradeoff`, on one tiny run."""

import contextlib
import csv
import json
import shutil
from pathlib import Path

import pytest

from cliffsteer.cli import main
from cliffsteer.report_rollouts import read_rollouts

TINY = [
    *("trainer.steps=4", "trainer.validate_every=4", "trainer.checkpoint_every=0", "trainer.progress=false"),
    *("trainer.rollout_steps=0", "data.batch_size=4", "schedule.warmup_steps=1", "data.history=2"),
    *("model=resnet", "model.options.hidden_channels=4", "model.options.blocks=[1]", "model.options.kernel_size=3"),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("couplings")
    with contextlib.chdir(folder):
        assert main(["generate", "solver=smoke", "solver.resolution=8", "n=6", "frames=8", "progress=false"]) == 0
        assert main(["train", "experiment=smoke", "name=tiny", *TINY]) == 0
        assert main(["train", "experiment=smoke", "name=other", *TINY, "trainer.seed=1"]) == 0
    return folder


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


def test_a_calibrated_run_is_rolled_out_with_guards(here, capsys):
    assert main(["rollout", "run=runs/tiny", "coupling=guarded"]) == 2
    assert "`cliffsteer calibrate run=runs/tiny` makes it" in capsys.readouterr().err
    assert main(["calibrate", "run=runs/tiny", "rate=0.2", "steps=2", "ensemble=[runs/other]"]) == 0
    out = capsys.readouterr().out
    assert "from 6 windows of 1 trajectory of split valid" in out
    assert "Wanted rate of alarms 0.2: at most" in out
    guards = json.loads((here / "runs/tiny/guards.json").read_text())["guards"]
    kinds = {guard["kind"] for guard in guards}
    assert {"finite", "courant", "divergence", "energy", "novelty", "disagreement"} <= kinds
    arguments = ["coupling=guarded", "steps=4", "hand_back=1", "out=rolled"]
    assert main(["rollout", "run=runs/tiny", *arguments]) == 0
    assert "Frames of the surrogate: " in capsys.readouterr().out
    found = json.loads((here / "rolled/interventions.json").read_text())
    counts = found["counts"]
    assert counts["surrogate"] + counts["rejected"] + counts["handed back"] == 4
    assert (here / "rolled/interventions.png").read_bytes().startswith(b"\x89PNG")


def test_a_member_that_is_gone_is_said(here, capsys):
    shutil.copytree("runs/other", "runs/gone")
    assert main(["calibrate", "run=runs/tiny", "rate=0.2", "guards=[finite]", "ensemble=[runs/gone]"]) == 0
    shutil.rmtree("runs/gone")
    assert main(["rollout", "run=runs/tiny", "coupling=guarded", "steps=2"]) == 2
    message = "runs/tiny/guards.json compares with the run runs/gone, which is not there any more: put it back"
    assert message in capsys.readouterr().err


def test_budgets_of_shorter_rollouts_are_said(here, capsys, caplog):
    assert main(["calibrate", "run=runs/tiny", "rate=0.5", "steps=2", "guards=[energy_budget]"]) == 0
    assert [main(["rollout", "run=runs/tiny", "coupling=guarded", f"steps={n}", f"out=b{n}"]) for n in (2, 3)] == [0, 0]
    assert (
        "The budgets of guards.json are those of 2 steps, and 3 are to be made" in caplog.text + capsys.readouterr().err
    )


def test_the_report_shows_rollouts_with_spectra_and_where_guards_tripped(here, capsys):
    assert main(["calibrate", "run=runs/tiny", "rate=0.5", "guards=[energy]"]) == 0
    description = json.loads((here / "runs/tiny/guards.json").read_text())
    assert [guard["kind"] for guard in description["guards"]][:2] == ["finite", "energy"]
    description["guards"][1]["threshold"] = 0.0  # trips at every step
    (here / "runs/tiny/guards.json").write_text(json.dumps(description))
    assert main(["rollout", "run=runs/tiny", "coupling=guarded", "steps=10", "extend=true"]) == 0
    assert "NRMSE after 10 steps" in capsys.readouterr().out
    folder = here / "runs/tiny/rollout-guarded"
    told = json.loads((folder / "rollout.json").read_text())
    assert (told["compared"], told["stored"], told["steps"]) == (10, 8, 10)
    assert told["errors"]["velocity"]["guarded"][-1] < 1e-4  # the solver made all of it, here and there
    assert told["bands"]["velocity"]["low"] == pytest.approx(1, abs=1e-3)
    spectra = told["spectra"]["density"]
    assert len(spectra["solver"]) == len(spectra["guarded"]) == len(told["wave_numbers"])
    assert len(told["energies"]["density"]["guarded"]) == 10
    assert (folder / "spectra.png").read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", "run=runs/tiny", "steps=3"]) == 0
    page = (here / "runs/tiny/report.html").read_text()
    assert "Rollout tiny: rollout-guarded" in page
    assert "10 rejected and done again by the solver" in page
    assert "over 10 frames; beyond the 8 stored ones with the solver" in page
    event = json.loads((folder / "interventions.json").read_text())["events"][3]
    cells = [str(event["step"]), f"{event['step'] * told['dt']:g} s", event["guard"], f"{event['score']:.3g}", "0"]
    cells += [", ".join(map(str, event["cell"])), f"{event['error']:.3g}"]
    assert "".join(f"<td>{cell}</td>" for cell in cells) in page
    (folder / "rollout.json").write_text("{}")
    assert main(["evaluate", "run=runs/tiny", "steps=3"]) == 2
    assert "holds no rollout that this cliffsteer reads" in capsys.readouterr().err
    (folder / "rollout.json").unlink()


def test_interventions_are_those_of_the_last_rollout_in_a_folder(here, capsys):
    assert main(["calibrate", "run=runs/tiny", "rate=0.5", "guards=[energy]"]) == 0
    folder = here / "runs/tiny/turned"
    words = ["rollout", "run=runs/tiny", "steps=2", "out=runs/tiny/turned"]
    assert main([*words, "coupling=guarded"]) == 0
    older = (folder / "interventions.json").read_text()
    assert read_rollouts(here / "runs/tiny")[0]["events"] is not None
    assert main(words) == 0
    assert not list(folder.glob("interventions.*"))
    (folder / "interventions.json").write_text(older)  # as earlier versions left it
    (found,) = read_rollouts(here / "runs/tiny")
    assert found["events"] is None
    assert "Guards" not in found["facts"]
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["steps=6"], "over 6 frames"),
        (["steps=9"], "over 6 frames"),
        (["steps=6", "extend=true"], "over 6 frames"),
        (["steps=6", "start=1", "extend=true"], "over 6 frames; beyond the 8 stored ones with the solver"),
    ],
)
def test_the_report_says_whether_a_rollout_went_beyond_the_data(here, words, text):
    assert main(["rollout", "run=runs/tiny", *words, "out=runs/tiny/short"]) == 0
    (found,) = read_rollouts(here / "runs/tiny")
    assert found["facts"]["Compared"] == text
    shutil.rmtree(here / "runs/tiny/short")


def test_guards_can_be_chosen(here, capsys):
    assert main(["calibrate", "run=runs/tiny", "rate=0.2", "guards=[residual]"]) == 0
    guards = json.loads((here / "runs/tiny/guards.json").read_text())["guards"]
    assert [guard["kind"] for guard in guards] == ["finite", "residual"]
    assert main(["rollout", "run=runs/tiny", "coupling=guarded", "steps=2", "out=runs/tiny"]) == 0
    assert json.loads((here / "runs/tiny/guards.json").read_text())["guards"] == guards
    assert (here / "runs/tiny/interventions.json").is_file()
    assert main(["calibrate", "run=runs/tiny", "rate=0.2", "add=[residual]"]) == 0
    kinds = [guard["kind"] for guard in json.loads((here / "runs/tiny/guards.json").read_text())["guards"]]
    assert {"finite", "novelty", "energy", "residual"} <= set(kinds)


def test_tradeoff_measures_solver_surrogate_and_couplings(here, capsys):
    couplings = "couplings=[replace,alternate,coarse_to_fine]"
    sizes = ["resolutions=[8,16]", "reference=32", "fine=16", "steps=3", "trajectories=1", "repeats=1"]
    assert main(["tradeoff", "run=runs/tiny", couplings, *sizes, "surrogate_steps=1"]) == 0
    out = capsys.readouterr().out
    folder = here / "runs/tiny/tradeoff"
    content = json.loads((folder / "tradeoff.json").read_text())
    assert content["verdict"] in out
    points = {p["label"]: p for p in content["points"]}
    assert list(points) == ["solver, 8 cells", "solver, 16 cells", "replace", "alternate", "coarse_to_fine"]
    assert points["solver, 16 cells"]["error"] < points["solver, 8 cells"]["error"]
    assert points["coarse_to_fine"]["shape"] == [16, 16]
    assert all(p["seconds"] > 0 and len(p["errors"]) == 3 for p in points.values())
    assert content["facts"]["reference"] == "smoke with 32 x 32 cells"
    with (folder / "tradeoff.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == list(points)
    page = (folder / "tradeoff.html").read_text()
    assert page.count("<tr>") == 6
    assert "data:image/png;base64," in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "rate=2"], "`rate` (=2.0) must lie between 0 and 1"),
        (["calibrate", "guards=[enrgy]"], "`guards` (='enrgy') is unknown: did you mean 'energy'?"),
        (["calibrate", "add=[energy_budget]"], "`steps` (=1) does not go with energy_budget: budgets add up over"),
        (["calibrate", "guards=[energy,curl]"], "`guards` asks for curl, which the training data do not obey"),
        (["calibrate", "guards=[energy,disagreement]"], "`ensemble` is missing: guards=[disagreement] compares"),
        (["calibrate", "ensemble=[runs/gone]"], "`ensemble` (=runs/gone) does not exist: give the folder of a run"),
        (
            ["calibrate", "ensemble=[runs/tiny]"],
            "`ensemble` (=runs/tiny) has the weights of the run itself, with which",
        ),
        (["rollout", "coupling=correct", "correction=runs/gone"], "`correction` (=runs/gone) does not exist"),
        (["calibrate", "add=[residul]"], "`add` (='residul') is unknown: did you mean 'residual'?"),
        (["calibrate", "steps=0"], "`steps` (=0) must be at least 1"),
        (["rollout", "hand_back=-1"], "`hand_back` (=-1) must be at least 0"),
        (["tradeoff", "couplings=[alternat]"], "`couplings` (='alternat') is unknown: did you mean 'alternate'?"),
        (["tradeoff", "couplings=[correct]"], "`correction` is missing"),
        (["rollout", "coupling=correct"], "`correction` is missing: the coupling 'correct' needs the folder of a"),
        (
            ["rollout", "coupling=coarse_to_fine", "fine=8"],
            "`fine` (=8) must be more than the 8 cells a side of the run",
        ),
        (
            ["rollout", "coupling=coarse_to_fine", "fine=4"],
            "`fine` (=4) must be more than the 8 cells a side of the run",
        ),
        (["rollout", "coupling=gaurded"], "`coupling` (='gaurded') is unknown: did you mean 'guarded'?"),
        (["rollout", "steps=0"], "`steps` (=0) must be at least 1"),
        (["tradeoff", "reference=8"], "`reference` (=8) must be finer than all `resolutions` ([4, 8])"),
        (["tradeoff", "repeats=0"], "`repeats` (=0) must be at least 1"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_faulty_command_lines_end_in_one_line(here, capsys, arguments, message):
    assert main([arguments[0], "run=runs/tiny", *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
