"""What the benchmarks share."""

import subprocess
import sys
from pathlib import Path

import measuring

SCRIPT = """
from dataclasses import dataclass
from measuring import RefusedError, arguments, run_cases

@dataclass
class Case:
    name: str

@dataclass
class Result:
    runner: str

    def compare(self, case):
        pass

def measure(case, runner, args):
    if runner == "bad":
        raise RefusedError("it is too wide")
    return Result(runner)

run_cases(__file__, arguments("Try.", "x.csv").parse_args(), [Case("small")], ["bad", "good"], measure, Result)
"""


def test_a_runner_that_cannot_do_a_case_is_left_out_with_its_reason(tmp_path):
    script = tmp_path / "try.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(measuring.__file__).parent)!r})\n{SCRIPT}")
    command = [sys.executable, str(script), "--out", str(tmp_path / "new" / "x.csv")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "small bad               left out: it is too wide" in shown
    lines = (tmp_path / "new" / "x.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["runner", "good"]
