"""The command that makes the surrogates to release, without its trainings."""

import json

import paper
import pytest
import release
import study
from study_runs import ASKED, finished, wanted


def test_every_experiment_has_its_surrogate_by_default(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(release, "release", lambda name, *_: made.append(name))
    release.main([])
    assert made == release.released()
    assert set(made) >= {"ns64", "maxwell3d", "maxwell_r12"}
    release.main(["ns64"])
    assert made[-1] == "ns64"
    with pytest.raises(SystemExit):
        release.main(["ns65"])


def test_it_is_the_run_of_the_small_table(tmp_path, monkeypatch):
    calls, runs = [], []
    monkeypatch.setattr(study, "cliffsteer", lambda *words, **_: calls.append(words))
    monkeypatch.setattr(paper, "make_data", lambda *_: None)
    monkeypatch.setattr(release, "run_all", lambda found, jobs: runs.extend(found) or [])
    release.release("ns64", tmp_path / "out", tmp_path)
    settings = study.read_study("paper_ns64", "small")
    table = [run for run, _, _ in paper.planned(settings, tmp_path / "paper_ns64-small")]
    assert wanted(runs[0]) in [wanted(run) for run in table]
    assert runs[0].folder in [run.folder for run in table]
    assert [words[0] for words in calls] == ["publish", "verify"]


def test_a_run_of_other_arguments_is_not_taken(tmp_path):
    settings = study.read_study("paper_ns64", "small")
    asked = paper.planned(settings | {"last": ["trainer.steps=2"]}, tmp_path)[0][0]
    asked.folder.mkdir(parents=True)
    (asked.folder / ASKED).write_text(json.dumps(wanted(asked)))
    (asked.folder / "metrics.json").write_text("{}")
    assert finished(asked)
    with pytest.raises(SystemExit, match="of other overrides"):
        finished(paper.planned(settings, tmp_path)[0][0])
