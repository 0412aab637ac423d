import importlib.util
import logging
import re
from pathlib import Path

import pytest
import torch

from cliffsteer import Surrogate
from cliffsteer.normalization import Normalization
from cliffsteer.solvers import create

SCRIPT = Path(__file__).parents[2] / "examples" / "inverse_problem.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("inverse_problem", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(caplog) -> dict[str, float]:
    return {label: float(off) for label, off in re.findall(r"(\w+): buoyancy .* off by (\S+)", caplog.text)}


def test_the_buoyancy_is_found_through_solver_and_hybrid(script, tmp_path, caplog):
    solver = create("smoke", resolution=12)
    model = {"name": "resnet", "hidden_channels": 4, "blocks": [1], "kernel_size": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        normalization = Normalization(
            solver.spec, dict.fromkeys(("density", "velocity"), 1.0), deltas={"density": 1e-3, "velocity": 1e-3}
        )
        surrogate = Surrogate.create(model, solver.spec, solver.grid, solver.dt, 1, 1, normalization)
    surrogate.save_pretrained(tmp_path / "surrogate")
    caplog.set_level(logging.INFO)
    script.main([str(tmp_path), "--steps", "3", "--iterations", "15"])
    off = found(caplog)
    assert off["solver"] < 1e-4  # the truth is the solver's own
    assert off["hybrid"] > 1e-2  # nothing moves in every other step of this surrogate, and the buoyancy makes up for it
    caplog.clear()
    script.main(["--steps", "2", "--resolution", "8"])
    assert found(caplog) == {"solver": pytest.approx(0, abs=1e-4)}
