"""``cliffsteer demo``: simulate, train, compare, couple and report, by the same verbs that a user would call."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cliffsteer.commands import evaluate, generate, train
from cliffsteer.commands.errors import UsageError
from cliffsteer.commands.loop import PLAIN, REPLACED, run_loops
from cliffsteer.commands.runs import load_surrogate, open_split, read_entry
from cliffsteer.commands.stages import Stage, run_stages
from cliffsteer.overrides import override
from cliffsteer.report import Loop, write_report
from cliffsteer.storage import replacing_file

HOW = ("out", "run", "root", "workers", "progress", "device", "devices", "accelerator", "resume")
"""Keys that say where and how something is done, not what: they do not count in the hash of a stage."""


def run(config: DictConfig) -> None:
    """Run all stages that are not done yet, and say what to try next.

    Raises:
        UsageError: no network, or one that shares its name with another stage.
    """
    out, names = Path(config.out), list(config.train)
    if not names:
        raise UsageError("`train` is empty: give at least one network, e.g. +train.csresnet=['experiment=demo'].")
    if clash := {"data", "loop", "report"} & set(names):
        raise UsageError(f"`train` names a network {clash.pop()!r}, which is the name of another stage.")
    data, loops, page = out / "data", out / "loop.json", out / "report.html"
    progress = f"progress={str(config.progress).lower()}"
    where = [override("out", data), f"workers={config.workers}", progress]
    calls = [_Call("data", generate, [*config.generate, *where], data)]
    for name in names:
        where = [
            override("data.root", data),
            override("name", name),
            override("out", out / name),
            f"trainer.{progress}",
        ]
        calls.append(_Call(f"train {name}", train, [*config.train[name], *where], out / name, ("data",)))
    for name in names:
        where = [override("run", out / name), f"steps={config.steps}", "report=false"]  # one page tells of all
        metrics = out / name / "metrics.json"
        calls.append(_Call(f"evaluate {name}", evaluate, where, metrics, (f"train {name}",)))
    stages = [call.stage(config.expected) for call in calls]

    def add(name: str, settings: dict[str, Any], needs: list[str], output: Path, work: Callable[[], None]) -> None:
        stages.append(Stage(name, settings, needs, output, work, config.expected.get(name, 10.0)))

    settings = {key: config[key] for key in ("steps", "solver_steps", "surrogate_steps", "loop_trajectories")}
    add("loop", settings, [f"train {names[0]}"], loops, lambda: _loop(config, out / names[0], loops))
    commands = [call.command for call in calls]
    work = lambda: _report([out / name for name in names], loops, page, commands)  # noqa: E731
    add("report", {}, ["loop", *(f"evaluate {name}" for name in names)], page, work)
    run_stages(stages, out)
    _finish(page, out / names[0], out)


@dataclass(frozen=True)
class _Call:
    """A verb with its overrides, as a stage."""

    name: str
    verb: ModuleType
    overrides: list[str]
    output: Path
    needs: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line that does the same."""
        shown = [item for item in self.overrides if not item.split("=")[0].endswith("progress")]
        return shlex.join(["cliffsteer", self.verb.__name__.rpartition(".")[2], *shown])

    def stage(self, expected: Mapping[str, float]) -> Stage:
        from hydra import compose

        config = compose(self.verb.__name__.rpartition(".")[2], self.overrides)
        what = _what(OmegaConf.to_container(config, resolve=True))
        work = lambda: self.verb.run(config)  # noqa: E731
        return Stage(self.name, what, self.needs, self.output, work, expected.get(self.name, 10.0))


def _what(config: Any) -> Any:
    """A config without the keys that do not decide the result."""
    if not isinstance(config, dict):
        return config
    return {key: _what(value) for key, value in config.items() if key not in HOW}


def _loop(config: DictConfig, folder: Path, out: Path) -> None:
    """Run the solver loops with the network in them and keep what came out."""
    surrogate = load_surrogate(folder, "cpu")
    trajectories = open_split(surrogate, None, "test")
    steps = min(config.steps, trajectories.n_frames - surrogate.history)
    result = run_loops(
        surrogate, trajectories, steps, config.solver_steps, config.surrogate_steps, config.loop_trajectories
    )
    with replacing_file(out) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _report(folders: list[Path], loops: Path, page: Path, commands: list[str]) -> None:
    entries = [read_entry(folder) for folder in folders]
    trajectories = open_split(entries[0].surrogate, None, entries[0].metrics["dataset"]["split"])
    result = json.loads(loops.read_text(encoding="utf-8"))
    seconds, curves = result["seconds"], dict(result["curves"])
    agreement = max(curves.pop(PLAIN))
    loop = Loop(
        text=f"The trained {entries[0].name} inside a PhiFlow script, in place of its step function, and in turns with"
        f" PhiFlow, on {result['trajectories']} held-out trajectories at once, {result['steps']} steps after a history"
        " computed by PhiFlow.",
        curves=curves,
        dt=result["dt"],
        facts={
            "PhiFlow alone": f"follows the stored frames to {agreement:.1e} (normalised RMSE)",
            **{f"Time of a step, {label}": f"{1000 * value:.1f} ms" for label, value in seconds.items()},
            "Speed": f"{seconds[PLAIN] / seconds[REPLACED]:.1f} times that of PhiFlow with the surrogate in the script",
        },
    )
    write_report(entries, trajectories, page, "cliffsteer demo: smoke rising in a closed box", loop, commands)


def _finish(page: Path, folder: Path, out: Path) -> None:
    """Say where the report is and what to try next."""
    here = "" if shutil.which("cliffsteer") else os.path.relpath(Path(sys.executable).parent) + os.sep
    sys.stdout.write(
        f"\nThe report: {page.resolve()}\n\nTo try next:\n"
        f"  {here}cliffsteer rollout run={folder} trajectory=1 coupling=alternate\n"
        f"  {here}tensorboard --logdir {out}\n"
        f"  {here}cliffsteer info\n"
    )
