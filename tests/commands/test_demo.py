"""The demo, small: all stages on real data, the report, and a second call that does nothing."""

import json

from cliffsteer.cli import main

TINY = [
    "experiment=demo",
    *("trainer.steps=4", "trainer.validate_every=4", "trainer.rollout_steps=0", "data.history=2"),
    *("model.options.hidden_channels=2", "model.options.blocks=[1]", "model.options.kernel_size=3"),
]


def demo(*overrides: str) -> int:
    def listed(items: list[str]) -> str:
        return "[" + ",".join(f"'{item}'" for item in items) + "]"

    return main(
        [
            "demo",
            "out=runs/tiny",
            f"generate={listed(['recipe=demo', 'solver.resolution=12', 'n=3', 'frames=6'])}",
            f"train.csresnet={listed(TINY)}",
            f"train.resnet={listed([*TINY, 'model=resnet'])}",
            *("steps=3", "surrogate_steps=1", "workers=1", "progress=false", *overrides),
        ]
    )


def test_the_demo_ends_in_a_report_and_a_second_call_keeps_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo() == 0
    shown = capsys.readouterr()
    assert "[7/7] report" in shown.err
    folder = tmp_path / "runs" / "tiny"
    page = (folder / "report.html").read_text()
    assert f"The report: {folder / 'report.html'}" in shown.out
    assert shown.out.count("run=runs/tiny/csresnet") >= 1
    assert "cliffsteer train experiment=demo" in page
    assert "In the solver loop" in page
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs"}

    loops = json.loads((folder / "loop.json").read_text())
    curves = loops["curves"]
    assert max(curves["PhiFlow script"]) < 1e-5  # PhiFlow computes what is stored
    assert curves["1 of PhiFlow, 1 of the surrogate, in turns"][0] < 1e-5  # PhiFlow goes first
    assert min(curves["PhiFlow script, surrogate for its step"]) > 1e-4  # an untrained network does not

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert demo() == 0
    assert capsys.readouterr().err.count("done before, kept") == 7
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_name_that_clashes_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "+train.report=['experiment=demo']"]) == 2
    assert "names a network 'report'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
