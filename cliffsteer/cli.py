"""The command line: ``cliffsteer VERB [key=value ...]``, a Hydra application for each verb.

A verb is a module of `cliffsteer.commands` with a function ``run(config)`` and a root config of the same name in
`cliffsteer.conf`. A verb with subjects takes one of them as its first word, which becomes the key ``subject``. Every
option of Hydra works after the verb. Whatever goes wrong ends in one line on stderr: exit code 2 for what the user can
mend, 130 after Ctrl-C, 1 for a fault of cliffsteer; ``CLIFFSTEER_DEBUG=1`` shows the traceback.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERBS = {
    "generate": "simulate trajectories and store them as a dataset",
    "convert": "data of The Well, PDEArena or PDEBench to a dataset, and back",
    "verify": "check every shard of a dataset, or measure a published run again",
    "train": "train a network on a dataset",
    "evaluate": "measure a trained run on held-out trajectories",
    "rollout": "roll a trained run out, alone or coupled to its solver",
    "calibrate": "set the thresholds of a run's guards on held-out data",
    "correct": "train a correction of a coarse solver inside its loop",
    "tradeoff": "measure error against time of the solver, a run and its couplings",
    "report": "write a page about evaluated runs",
    "compare": "table and plots of many runs: `compare runs/*`",
    "publish": "save a trained run with its metrics and a model card, and push it to a hub",
    "inspect": "look into kernels, networks and data: `inspect kernel`, `inspect equivariance`, `inspect data`",
    "info": "list solvers, datasets, models, experiments and runs",
    "demo": "all of it once, small: simulate, train, compare, couple, report",
}
WITH_SUBJECT = ("inspect",)
"""Verbs with subjects."""
WITH_RUNS = ("compare", "report")
"""Verbs that take folders of runs as plain words."""
DEBUG = "CLIFFSTEER_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; the console script ``cliffsteer`` calls it.

    Args:
        arguments: verb and overrides; those of the process by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = arguments[0] if arguments else None
    try:
        if verb in (None, "help", "-h", "--help"):
            sys.stdout.write(usage())
        elif verb in ("-V", "--version"):
            from cliffsteer import __version__

            sys.stdout.write(f"cliffsteer {__version__}\n")
        else:
            with contextlib.ExitStack() as start:
                start.enter_context(_leaving_at_once())
                _run(verb, arguments[1:], start)
        sys.stdout.flush()
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            return _fail(exit_.__context__, verb)
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except (Exception, KeyboardInterrupt) as error:
        return _fail(error, verb)
    return 0


def usage() -> str:
    """The text of ``cliffsteer --help``."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {line}" for verb, line in VERBS.items())
    return (
        "Usage: cliffsteer VERB [key=value ...] [options of Hydra]\n\n"
        f"{verbs}\n\n"
        "`cliffsteer VERB --help` shows the keys of a verb, `--cfg job` the config it would run with, `--multirun`\n"
        "runs every combination of key=a,b. Start with `cliffsteer demo`, or with `cliffsteer info`.\n"
    )


def _run(verb: str, arguments: list[str], start: contextlib.ExitStack) -> None:
    """Hand the rest of the command line to Hydra and the composed config to the verb; ``start`` ends before it runs."""
    from cliffsteer.commands.errors import UsageError
    from cliffsteer.suggestions import suggestion

    if verb not in VERBS:
        raise UsageError(
            f"`{verb}` is no verb of cliffsteer{suggestion(verb, VERBS) or ';'} verbs: {', '.join(VERBS)}."
        )
    import hydra

    from cliffsteer.commands.folders import name_swept_values
    from cliffsteer.commands.schema import register

    options, arguments = _parse(verb, arguments)
    if options.multirun:
        arguments = [name_swept_values(options.overrides), *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing: the line shown is ours
    register()

    before, hook = sys.argv, threading.excepthook
    sys.argv = [f"cliffsteer {verb}", *arguments]
    threading.excepthook = _thread_failed
    try:
        with _plain_messages():
            hydra.main(config_path="pkg://cliffsteer.conf", config_name=verb, version_base="1.3")(_Task(verb, start))()
    finally:
        sys.argv, threading.excepthook = before, hook


class _Task:
    """What Hydra calls with a config; launchers of Hydra may pickle it and call it in another process, on a cluster.

    Args:
        verb: the verb.
        start: what ends before the verb runs; in another process there is nothing to end.
    """

    def __init__(self, verb: str, start: contextlib.ExitStack | None):
        self.verb, self.start = verb, start

    def __getstate__(self) -> dict[str, object]:
        return {"verb": self.verb, "start": None}

    def __call__(self, config: DictConfig) -> None:
        from cliffsteer.commands.schema import check

        with _plain_messages() if self.start is None else contextlib.nullcontext():
            try:
                check(self.verb, config)
                module = importlib.import_module(f"cliffsteer.commands.{self.verb}")
                if self.start is not None:
                    self.start.close()  # nothing was written until now
                module.run(config)
            except Exception as error:  # past Hydra, which would add lines of its own
                raise SystemExit(_fail(error, self.verb)) from None


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Make Ctrl-C end the process without unwinding: modules that are half imported would print tracebacks."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or DEBUG in os.environ:
        yield
        return

    from cliffsteer.commands.errors import describe

    line, code = describe(KeyboardInterrupt())

    def leave(*_: object) -> None:
        os.write(2, f"cliffsteer: {line}\n".encode())
        os._exit(code)

    try:
        signal.signal(signal.SIGINT, leave)
    except ValueError:  # not the main thread, which alone is interrupted
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _parse(verb: str, arguments: list[str]) -> tuple[Namespace, list[str]]:
    """The command line as Hydra will see it, and its words with the options last, as Hydra wants them.

    Raises:
        UsageError: an option that Hydra does not know; it would print its usage.
    """
    from hydra._internal.utils import get_args_parser

    from cliffsteer.commands.errors import UsageError
    from cliffsteer.overrides import opened
    from cliffsteer.suggestions import suggestion

    parser = get_args_parser()

    def refuse(message: str) -> None:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            raise UsageError(f"{message}.")
        hint = suggestion(unknown, parser._option_string_actions) or f"; `cliffsteer {verb} --help` lists them."
        raise UsageError(f"`{unknown}` is no option{hint}")

    parser.error = refuse
    overrides, options, words = [], [], list(arguments)
    while words:
        word = words.pop(0)
        (options if word.startswith("-") else overrides).append(word)
        known = parser._option_string_actions
        action = known.get(word) or next((known[name] for name in known if name.startswith(word)), None)
        if action is None or action.nargs == 0 or not words:
            continue
        if action.nargs != "?" or words[0] in (action.choices or ()):
            options.append(words.pop(0))
    if verb in WITH_SUBJECT and overrides and overrides[0].replace("-", "_").isidentifier():
        subject = overrides[0]
        overrides[:1] = [f"subject={subject}", f"hydra.job.name='{verb} {subject}'"]
    if verb in WITH_RUNS:
        runs = [word for word in overrides if os.path.isdir(word) or not ("=" in word or word.startswith(("+", "~")))]
        overrides = [word for word in overrides if word not in runs]
        overrides += [f"runs={json.dumps(runs, ensure_ascii=False)}"] if runs else []
    overrides = [opened(word) for word in overrides]
    return parser.parse_args([*overrides, *options]), [*overrides, *options]


@contextlib.contextmanager
def _plain_messages() -> Iterator[None]:
    """Our messages go to stderr, one plain line each, while a verb runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("cliffsteer")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate, logger.level = before


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Leave a failed write of TensorBoard's thread to the main one, where it is raised again."""
    ours = type(failure.thread).__module__.startswith("tensorboard.") and issubclass(failure.exc_type, OSError)
    if not ours or os.environ.get(DEBUG) == "1":
        threading.__excepthook__(failure)


def _fail(error: BaseException, verb: str | None) -> int:
    """Say in one line what went wrong; returns the exit code."""
    from cliffsteer.commands.errors import describe

    if isinstance(error, BrokenPipeError):  # the reader of our output went away, as in `cliffsteer info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if os.environ.get(DEBUG) == "1":
        import traceback

        traceback.print_exception(error)
    line, code = describe(error, verb if verb in VERBS else None)
    sys.stderr.write(f"cliffsteer: {line}\n")
    return code
