import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, rollout
from cliffsteer.solvers import Solver, State, available, create, register, registry


class Decay(Solver):
    """Exponential decay of a scalar."""

    def __init__(self, rate: float, cells: int = 4):
        self.spec = FieldSpec((1,), [Field("amount", 0)])
        self.grid, self.dt, self.rate = Grid((cells,)), 0.5, rate

    def initial(self, seeds):
        return State({"amount": torch.tensor(seeds, dtype=torch.float64)[:, None].expand(-1, *self.grid.shape)}, {})

    def advance(self, state):
        factor = torch.exp(torch.tensor(-self.rate * self.dt, dtype=torch.float64))
        return State({"amount": state.values["amount"] * factor}, {})

    def observe(self, state):
        return self.spec.pack({"amount": state.values["amount"][:, None]})

    def restore(self, frames, parameters=None):
        return State({"amount": self.spec.unpack(frames)["amount"][:, -1, 0].double()}, {})


class FasterDecay(Decay):
    """Decay with a factor."""

    def __init__(self, factor: float = 2.0, **options):
        super().__init__(**options)
        self.rate *= factor


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    register("decay")(Decay)
    register("faster_decay")(FasterDecay)


def test_built_in_solvers_are_listed_with_one_line_each():
    lines = available()
    assert {"smoke", "smoke_phiflow"} <= set(lines)
    assert all(line and "\n" not in line for line in lines.values())


def test_the_page_of_simulators_has_all_of_them():
    page = (Path(__file__).parents[2] / "docs" / "simulators.md").read_text(encoding="utf-8")
    headings = {name for line in page.splitlines() if line.startswith("## ") for name in line[3:].split(", ")}
    assert set(registry._BUILT_IN) <= headings


def test_a_registered_solver_is_a_stepper(registered):
    solver = create("decay", rate=2.0)
    assert (solver.name, solver.history) == ("decay", 1)
    frames = solver.observe(solver.initial([1, 2])).float()
    later = rollout(solver, frames, 3)
    assert later.dtype == torch.float32
    torch.testing.assert_close(later[:, 2, 0], frames[:, 0, 0] * torch.exp(torch.tensor(-3.0)))
    assert available()["decay"] == "Exponential decay of a scalar."


def test_inherited_options(registered):
    assert create("faster_decay", rate=1.0, factor=3.0, cells=5).rate == 3.0
    with pytest.raises(
        ValueError, match=r"`sells` is no option .*: its options are factor, rate, cells\. Did you mean 'cells'"
    ):
        create("faster_decay", rate=1.0, sells=5)


def test_unknown_solver_names_the_choices():
    with pytest.raises(
        ValueError, match=r"`solver` \(='smok'\) is unknown: choose from .*'smoke', .* Did you mean 'smoke'\?"
    ):
        create("smok")


def test_unknown_option_names_the_options():
    with pytest.raises(ValueError, match=r"`visosity` is no option of solver 'smoke': .* Did you mean 'viscosity'\?"):
        create("smoke", visosity=0.1)


def test_missing_option(registered):
    with pytest.raises(ValueError, match="`rate` must be given for solver 'decay'"):
        create("decay")


def test_names_are_not_shared(registered):
    with pytest.raises(ValueError, match=r"`name` \(='smoke'\) is taken"):
        register("smoke")(type("Other", (Decay,), {}))
    with pytest.raises(ValueError, match=r"`name` \(='decay'\) is taken"):
        register("decay")(type("Other", (Decay,), {}))
    with pytest.raises(ValueError, match=r"`Grid` must be a subclass of cliffsteer.solvers.Solver"):
        register("grid")(Grid)


def test_entry_points(tmp_path, monkeypatch):
    (tmp_path / "decay_plugin.py").write_text(
        "from cliffsteer.solvers.smoke import Smoke\nclass Mist(Smoke):\n    '''Thin smoke.'''\n"
    )
    info = tmp_path / "decay_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: decay-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cliffsteer.solvers]\nmist = decay_plugin:Mist\nbroken = decay_plugin:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    importlib.invalidate_caches()
    lines = available()
    assert lines["mist"] == "Thin smoke."
    assert "cannot be loaded from decay_plugin:Nothing" in lines["broken"]
    solver = create("mist", resolution=8)
    assert solver.name == "mist"
    assert create("smoke", resolution=8).name == "smoke"
    with pytest.raises(ValueError, match=r"`solver` \(='broken'\) cannot be loaded"):
        create("broken")


def test_listing_solvers_imports_no_phiflow():
    code = "import sys; from cliffsteer.solvers import available; available(); print('phi' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
