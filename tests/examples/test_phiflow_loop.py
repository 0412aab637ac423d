import importlib.util
import logging
import re
import warnings
from pathlib import Path

import pytest

from cliffsteer import Surrogate
from cliffsteer.normalization import Normalization
from cliffsteer.solvers import create

SCRIPT = Path(__file__).parents[2] / "examples" / "phiflow_loop.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("phiflow_loop", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("folder", ["run/surrogate", "run"])
def test_the_example_runs_a_surrogate_in_a_phiflow_loop(script, tmp_path, caplog, folder):
    solver = create("smoke", resolution=12)
    model = {"name": "resnet", "hidden_channels": 4, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(
        model, solver.spec, solver.grid, solver.dt, 2, 1, Normalization.identity(solver.spec), "delta"
    )
    surrogate.save_pretrained(tmp_path / "run" / "surrogate")
    caplog.set_level(logging.INFO)
    image = tmp_path / "loop.png"
    script.main([str(tmp_path / folder), "--start", "1", "--steps", "3", "--out", str(image)])
    differences = [float(d) for d in re.findall(r"smoke differs by ([\d.]+)", caplog.text)]
    assert len(differences) == 3
    assert differences[0] == 0  # the script's own step fills the history
    assert differences[2] > 0
    assert image.read_bytes().startswith(b"\x89PNG")


def test_three_lines_are_marked():
    assert re.findall(r"# \((\d)\)$", SCRIPT.read_text(), re.M) == ["1", "2", "3"]
