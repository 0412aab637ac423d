"""Stages of a longer job, each done once: a stage whose config and predecessors are unchanged is not run again."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliffsteer import __version__
from cliffsteer.commands.errors import UsageError
from cliffsteer.storage import replacing_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: its name.
        config: JSON-ready, all that decides its result besides the stages it needs.
        needs: names of earlier stages.
        output: the file or folder it writes.
        work: does it; called again after an interruption, it must go on from there.
        expected: seconds it is expected to take.
    """

    name: str
    config: Any
    needs: Sequence[str]
    output: Path
    work: Callable[[], None]
    expected: float


def run_stages(stages: Sequence[Stage], folder: Path) -> list[str]:
    """Run the stages that are not done, in order, and remember them in ``folder/stages.json``.

    A stage is known by the hash of its config, of the hashes of the stages it needs, and of the version of cliffsteer.
    With the same hash a finished stage is kept and an interrupted one called again, to go on; with another hash what
    the old one wrote is removed first. The time left is that expected of the stages still to run, scaled by how those
    before them went.

    Args:
        stages: the stages; each one's needs come before it.
        folder: where they write.

    Returns:
        Names of the stages that were run.

    Raises:
        UsageError: an output is there that no stage has made, or the record is damaged.
    """
    record = _Record(folder / "stages.json")
    keys: dict[str, str] = {}
    for stage in stages:
        content = {"config": stage.config, "needs": [keys[need] for need in stage.needs], "version": __version__}
        keys[stage.name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    missing = [stage for stage in stages if not record.done(stage, keys[stage.name])]
    for stage in missing:
        if stage.output.exists() and not record.knows(stage.name):
            raise UsageError(f"{stage.output} is there but was not made by this command: give another `out`.")
    took = planned = 0.0
    for number, stage in enumerate(stages, 1):
        title = f"[{number}/{len(stages)}] {stage.name}"
        if stage not in missing:
            logger.info("%s: done before, kept", title)
            continue
        left = sum(later.expected for later in missing[missing.index(stage) :]) * (took / planned if planned else 1.0)
        logger.info("%s (about %s left in all)", title, _minutes(left))
        record.begin(stage, keys[stage.name])
        began = time.perf_counter()
        stage.work()
        took, planned = took + time.perf_counter() - began, planned + stage.expected
        record.finish(stage)
    return [stage.name for stage in missing]


class _Record:
    """What is known of each stage: its hash, and whether it finished."""

    def __init__(self, file: Path):
        self.file = file
        try:
            self.stages = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        except ValueError as error:
            raise UsageError(f"{file} is damaged ({error}): remove {file.parent} and run the same again.") from error

    def knows(self, name: str) -> bool:
        return name in self.stages

    def done(self, stage: Stage, key: str) -> bool:
        return self.stages.get(stage.name) == {"key": key, "done": True} and stage.output.exists()

    def begin(self, stage: Stage, key: str) -> None:
        if self.stages.get(stage.name, {}).get("key", key) != key:
            if stage.output.is_dir() and not stage.output.is_symlink():
                shutil.rmtree(stage.output)
            else:
                stage.output.unlink(missing_ok=True)
        self._write(stage.name, {"key": key, "done": False})

    def finish(self, stage: Stage) -> None:
        self._write(stage.name, self.stages[stage.name] | {"done": True})

    def _write(self, name: str, state: dict[str, Any]) -> None:
        self.stages[name] = state
        with replacing_file(self.file) as temporary:
            temporary.write_text(json.dumps(self.stages, indent=2) + "\n", encoding="utf-8")


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes else f"{max(1, round(seconds))} s"
