"""What the benchmarks share: the machine's description, peak memory, entries in processes of their own, CSV."""

from __future__ import annotations

import csv
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")


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


def write_csv(path: Path, results: Sequence[Any], setting: dict[str, str]) -> None:
    """Write dataclasses as rows, each with the machine's description."""
    rows = [{**asdict(result), **setting} for result in results]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
