"""What the benchmarks share: command lines, entries in processes of their own, the machine, peak memory, CSV."""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

_STATUS = Path("/proc/self/status")


class Result(Protocol):
    """What was measured of a runner in a case: a dataclass, whose text is its line of the table."""

    def compare(self, case: Mapping[str, Any]) -> None:
        """Fill in the ratios to other results of the case, by runner, the first to this one."""


class RefusedError(Exception):
    """A runner cannot do a case; the text says why."""


def arguments(doc: str, out: str, repeats: int = 3) -> argparse.ArgumentParser:
    """The command line of a benchmark of cases and runners.

    Args:
        doc: its docstring.
        out: name of its file in benchmarks/results.
        repeats: the default.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results") / out)
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "RUNNER"), help=argparse.SUPPRESS)
    return parser


def run_cases(
    script: str,
    args: argparse.Namespace,
    cases: Sequence[Any],
    runners: Sequence[str],
    measure: Callable[[Any, str, argparse.Namespace], Result],
    result: type[Result],
    **setting: str,
) -> None:
    """Measure every runner in every case, each in a process of its own; print the table and write it.

    One that cannot do a case (`RefusedError`) is left out, with its sentence.

    Args:
        script: file of the benchmark, which is started anew for each of them, with the same options.
        args: its command line, made by `arguments`.
        cases: of which ``--only`` names some.
        runners: in their order.
        measure: (case, runner, command line) -> result, in that process.
        result: the class of the results.
        setting: what is noted beside the machine.
    """
    torch.set_num_threads(args.threads)
    if unknown := sorted(set(args.only or ()) - {case.name for case in cases}):
        sys.exit(f"`--only` (={unknown[0]!r}) must be of {', '.join(case.name for case in cases)}.")
    if args.worker:
        case = next(case for case in cases if case.name == args.worker[0])
        try:
            print(json.dumps(asdict(measure(case, args.worker[1], args))))
        except RefusedError as error:
            print(json.dumps({"refused": str(error)}))
        return
    setting = machine(args.threads) | setting
    print(setting)
    results = []
    for case in cases:
        if args.only and case.name not in args.only:
            continue
        measured: dict[str, Result] = {}
        for runner in runners:
            found = in_process(script, *sys.argv[1:], "--worker", case.name, runner)
            if "refused" in found:
                print(f"{case.name:5s} {runner:17s} left out: {found['refused']}", flush=True)
                continue
            measured[runner] = result(**found)
            measured[runner].compare(measured)
            print(measured[runner], flush=True)
        results += measured.values()
    if not results:
        sys.exit("Nothing was measured.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_results(args.out, results, setting)


def give_back() -> None:
    """Let the allocator give what was freed to the system, where it keeps that for later."""
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Bytes that the process holds; 0 where the system does not tell."""
    return _status("VmRSS")


def reset_peak() -> None:
    """Start to measure the peak anew, where the system can; elsewhere it is that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """The most bytes the process held since `reset_peak`."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(key: str) -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


def machine(threads: int) -> dict[str, str]:
    """What the numbers were measured on; ``load`` above 0.5 at the start tells of other work on the machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(threads),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def in_process(script: str, *arguments: Any) -> dict[str, Any]:
    """Run a script's worker in a process of its own; the last line of its output is the result, as JSON."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"`{' '.join(command[1:])}` failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def write_results(path: Path, results: Sequence[Any], setting: dict[str, str]) -> None:
    """Write dataclasses as rows, each with the machine's description."""
    rows = [{**asdict(result), **setting} for result in results]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
