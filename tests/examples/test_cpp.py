"""The rollout in C++, built and run where there are the tools for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.coupling import Program
from cliffsteer.export import export
from cliffsteer.normalization import Normalization
from cliffsteer.stepper import rollout

EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp"


def missing() -> str | None:
    """What is not there to build the example with."""
    if not (Path(torch.utils.cmake_prefix_path) / "Torch" / "TorchConfig.cmake").is_file():
        return "this PyTorch has no files for CMake (TorchConfig.cmake)"
    if shutil.which("cmake") is None:
        return "cmake is not installed"
    if all(shutil.which(name) is None for name in ("c++", "g++", "clang++")):
        return "no C++ compiler is installed"
    return None


def call(*words: object) -> None:
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_rollout_in_cpp_is_that_of_the_program(tmp_path):
    spec = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s"), Field("force", 1, role="parameter")])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = {"name": "csresnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
        surrogate = Surrogate.create(model, spec, Grid((8, 8)), 1.0, 2, 1, Normalization.identity(spec)).eval()
        frames = torch.randn(1, 2, 4, 8, 8).masked_fill(~spec.occupied.view(-1, 1, 1), 0)
    parameters = torch.tensor([[0.0, 0.1, -0.2, 0.0]])
    exported = export(surrogate, tmp_path / "model")
    torch.save((frames, parameters), tmp_path / "input.pt")
    call(sys.executable, EXAMPLE / "compile.py", exported, tmp_path / "program.pt2")
    call("cmake", "-S", EXAMPLE, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    call("cmake", "--build", tmp_path / "build")
    call(tmp_path / "build" / "rollout", tmp_path / "program.pt2", tmp_path / "input.pt", 5, tmp_path / "frames.pt")
    found = torch.load(tmp_path / "frames.pt", weights_only=True)
    expected = rollout(Program(exported), frames, 5, spec.unpack_parameters(parameters))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
