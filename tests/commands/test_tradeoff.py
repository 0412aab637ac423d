"""`tradeoff` and the native solvers it takes, and what does not fit a run."""

import contextlib
import json
from pathlib import Path

import pytest

from cliffsteer import Surrogate
from cliffsteer.cli import main
from cliffsteer.commands.couplings import stable
from cliffsteer.datasets import TrajectoryDataset
from cliffsteer.normalization import Normalization
from cliffsteer.solvers import UnstableError

MODEL = {"name": "resnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}


def save(folder, data, dt, **told):
    """An untrained surrogate on the grid of a dataset."""
    spec, scales = data.spec, {f.name: 1.0 for f in data.spec.dynamic}
    means = {f.name: 0.0 for f in spec.dynamic if f.grade == 0}
    parameters = {f.name: 1.0 for f in spec.parameters}
    normalization = Normalization(spec, scales, means, scales, parameters)
    surrogate = Surrogate.create(MODEL, spec, data.grid, dt, 1, 1, normalization, "delta")
    surrogate.save_pretrained(folder, {"data": {"root": "data/fine"}, **told})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tradeoff")
    with contextlib.chdir(folder):
        for name, cells in (("fine", 16), ("coarse", 8)):
            options = [f"solver.resolution={cells}", "solver.substeps=4", "solver.scale=3.0", f"out=data/{name}"]
            assert main(["generate", "solver=turbulence", *options, "n=4", "frames=3", "progress=false"]) == 0
        data = TrajectoryDataset("data/fine", "test")
        save("runs/plain", data, data.dt)
        solver = {"name": "turbulence", "options": {"resolution": 16, "dt": 0.05}}
        save("runs/slower", data, 0.05, correction={"solver": solver, "every": 1})
    return folder


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


def test_a_solver_takes_as_few_substeps_as_are_stable(here):
    data, tried = TrajectoryDataset("data/fine", "test"), []

    def use(enough):
        def tell(solver):
            tried.append((solver.grid.shape[0], solver.substeps))
            if solver.substeps < enough:
                raise UnstableError("`substeps` is unstable")
            return solver.substeps

        return tell

    assert [stable(data, cells, use(1)) for cells in (8, 12, 16, 32)] == [2, 3, 4, 8]
    tried.clear()
    assert stable(data, 8, use(4)) == 4
    assert tried == [(8, 2), (8, 3), (8, 4)]
    with pytest.raises(ValueError, match="is unstable"):
        stable(data, 8, use(100))
    assert tried[-1] == (8, 8)


def test_a_solver_that_refuses_too_few_substeps_is_run_on_more_cells(here):
    options = ["solver.resolution=4", "solver.dt=0.25", "solver.substeps=2", "n=3", "frames=2", "progress=false"]
    assert main(["generate", "solver=maxwell3d_yee", *options, "out=data/yee"]) == 0
    data = TrajectoryDataset("data/yee", "train")
    assert [stable(data, cells, lambda solver: solver.substeps) for cells in (4, 6, 8)] == [2, 3, 4]


def test_the_native_solver_is_at_its_best_settings(here):
    words = ["couplings=[replace]", "steps=2", "trajectories=1", "repeats=2"]
    assert main(["tradeoff", "run=runs/plain", *words]) == 0
    content = json.loads((here / "runs/plain/tradeoff/tradeoff.json").read_text())
    facts = content["facts"]
    assert facts["substeps of the solvers"] == "2 with 8 cells, 4 with 16 cells"
    assert facts["precision"] == "solvers float64, surrogate float32"
    assert (facts["device"], facts["solvers ran on"]) == ("cpu", "cpu")
    assert facts["reference"] == "turbulence with 32 x 32 cells"
    assert all(p["quartiles"][0] <= p["seconds"] <= p["quartiles"][1] for p in content["points"])
    table = (here / "runs/plain/tradeoff/tradeoff.csv").read_text().splitlines()
    assert table[0] == "label,kind,cells,error,seconds,first quartile,third quartile,speedup"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tradeoff", "root=data/coarse"], "`root` (=data/coarse) holds data with the grid"),
        (["rollout", "root=data/coarse"], "`root` (=data/coarse) holds data with the grid"),
        (["calibrate", "root=data/coarse"], "`root` (=data/coarse) holds data with the grid"),
        (["rollout", "coupling=correct", "correction=runs/plain"], "holds a surrogate that predicts frames by itself"),
        (
            ["rollout", "coupling=correct", "correction=runs/slower"],
            "has the time step 0.05, frames of the data are 0.1",
        ),
        (["tradeoff", "reference=17", "resolutions=[16,17]"], "`reference` (=17) must be finer than all"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(here, capsys, arguments, message):
    assert main([arguments[0], "run=runs/plain", *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
