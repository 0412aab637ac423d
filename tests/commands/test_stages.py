"""Stages run once, again when their config or a predecessor changes, and go on after an interruption."""

import json
from pathlib import Path

import pytest

from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.stages import Stage, run_stages


class Job:
    """Two stages, a and b, b needs a; each call is counted."""

    def __init__(self, folder: Path):
        self.folder, self.calls, self.fail = folder, [], False

    def run(self, a: int = 1, b: int = 1) -> list[str]:
        def stage(name: str, value: int, needs: tuple[str, ...] = ()) -> Stage:
            def work() -> None:
                self.calls.append((name, (self.folder / name).exists()))
                (self.folder / name).write_text(str(value))
                if self.fail:
                    raise KeyboardInterrupt

            return Stage(name, {"value": value}, needs, self.folder / name, work, expected=1.0)

        return run_stages([stage("a", a), stage("b", b, ("a",))], self.folder)


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(tmp_path)


def test_finished_stages_are_kept(job):
    assert job.run() == ["a", "b"]
    assert job.run() == []
    assert job.calls == [("a", False), ("b", False)]


def test_a_changed_stage_is_made_anew_and_so_is_what_needs_it(job):
    job.run()
    assert job.run(b=2) == ["b"]
    assert job.run(a=2, b=2) == ["a", "b"]
    assert job.calls[2:] == [("b", False), ("a", False), ("b", False)]  # what was there is removed first
    assert (job.folder / "a").read_text() == "2"


def test_a_stage_whose_output_is_gone_is_made_anew(job):
    job.run()
    (job.folder / "b").unlink()
    assert job.run() == ["b"]


def test_an_interrupted_stage_goes_on_with_what_it_wrote(job):
    job.fail = True
    with pytest.raises(KeyboardInterrupt):
        job.run()
    job.fail = False
    assert job.run() == ["a", "b"]
    assert job.calls == [("a", False), ("a", True), ("b", False)]


def test_files_of_others_are_not_touched(job):
    (job.folder / "b").write_text("precious")
    with pytest.raises(UsageError, match="b is there but was not made by this command"):
        job.run()
    assert job.calls == []
    assert (job.folder / "b").read_text() == "precious"


def test_a_damaged_record_says_so(job):
    (job.folder / "stages.json").write_text("{")
    with pytest.raises(UsageError, match=r"stages.json is damaged"):
        job.run()


def test_the_record_is_readable(job):
    job.run()
    record = json.loads((job.folder / "stages.json").read_text())
    assert record["a"]["done"]
    assert len(record["b"]["key"]) == 64


def test_the_time_left_follows_the_pace(job, caplog):
    caplog.set_level("INFO", "cliffsteer")
    job.run()
    assert "[1/2] a (about 2 s left in all)" in caplog.text
    assert "[2/2] b (about 1 s left in all)" in caplog.text
