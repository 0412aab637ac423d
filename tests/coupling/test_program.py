"""Exported surrogates as Steppers, without the library's training side."""

import os
import subprocess
import sys

import pytest
import torch

from cliffsteer import Stepper, rollout
from cliffsteer.coupling import Alternate, Program
from cliffsteer.export import export
from cliffsteer.grid import Grid


@pytest.fixture(scope="module")
def folder(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    export(smoke.surrogate, folder, any_grid=True)
    export(smoke.surrogate, folder, format="onnx")
    return folder


@pytest.fixture
def start(smoke):
    state = smoke.solver.initial([0, 1])
    return smoke.solver.observe(state).float(), {"buoyancy": (0.1, 0.2)}


@pytest.mark.parametrize("file", ["model.pt2", "model.onnx"])
def test_a_program_rolls_out_like_the_surrogate(smoke, folder, start, file):
    frames, parameters = start
    program = Program(folder / file)
    assert isinstance(program, Stepper)
    assert (program.spec, program.grid, program.dt) == (smoke.solver.spec, smoke.solver.grid, smoke.solver.dt)
    for stepper in (lambda s: s, lambda s: Alternate(smoke.solver, s, 1, 2)):
        expected = rollout(stepper(smoke.surrogate), frames, 4, parameters)
        torch.testing.assert_close(rollout(stepper(program), frames, 4, parameters), expected, rtol=0, atol=1e-4)
    assert program.step(frames.double(), parameters).dtype == torch.float64


def test_a_program_for_any_grid(smoke, folder):
    program = Program(folder / "model.pt2")
    larger = program.at(Grid((12, 20), 1.0, "no_slip"))
    frames = torch.rand(1, 1, 4, 12, 20).masked_fill(~smoke.solver.spec.occupied.view(-1, 1, 1), 0)
    assert larger.step(frames).shape == frames.shape
    with pytest.raises(ValueError, match="export the surrogate with any_grid=True"):
        program.at(Grid((12, 12), 2.0, "no_slip"))
    with pytest.raises(ValueError, match="export the surrogate with any_grid=True"):
        Program(folder / "model.onnx").at(larger.grid)
    with pytest.raises(ValueError, match="must be the grid's"):
        program.step(frames)


def test_a_loop_imports_nothing_of_the_training_side(folder):
    code = (
        "import sys\n"
        "for name in ('lightning', 'hydra', 'phi', 'h5py', 'tensorboard', 'matplotlib', 'torchmetrics'):\n"
        "    sys.modules[name] = None\n"
        "import torch\n"
        "from cliffsteer import rollout\n"
        "from cliffsteer.coupling.program import Program\n"
        "program = Program(sys.argv[1])\n"
        "print(tuple(rollout(program, torch.zeros(1, 1, program.spec.n_blades, *program.grid.shape), 3).shape))\n"
    )
    arguments = [sys.executable, "-c", code, str(folder / "model.pt2")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=os.environ)
    assert result.stdout.strip() == "(1, 3, 4, 12, 12)", result.stderr


def test_files_that_are_missing_or_damaged_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="give a file that"):
        Program(tmp_path / "model.pt2")
    for name in ("model.pt2", "model.pt2.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with (tmp_path / "model.pt2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"differs from its checksum in model\.pt2\.json"):
        Program(tmp_path / "model.pt2")
    about = tmp_path / "model.pt2.json"
    text = about.read_text()
    about.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ValueError, match="describes no program of this version"):
        Program(tmp_path / "model.pt2")
    about.write_text(text[:100])
    with pytest.raises(ValueError, match="is damaged"):
        Program(tmp_path / "model.pt2")
