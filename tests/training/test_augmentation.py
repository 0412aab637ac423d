import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.training.augmentation import RandomSymmetries

PLANE = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1), Field("gravity", 1, role="parameter")])
SPACETIME = FieldSpec((1, -1, -1), [Field("field", 2)])


def batch(spec: FieldSpec, grid: tuple[int, ...], windows: int = 16) -> dict[str, torch.Tensor]:
    algebra = spec.algebra
    return {
        "history": torch.randn(windows, 2, algebra.n_blades, *grid, dtype=torch.float64),
        "future": torch.randn(windows, 1, algebra.n_blades, *grid, dtype=torch.float64),
        "parameters": torch.randn(windows, spec.n_parameter_blades, dtype=torch.float64),
    }


@pytest.mark.parametrize(("spec", "grid", "count"), [(PLANE, (6, 6), 8), (PLANE, (6, 4), 4), (SPACETIME, (3, 4, 4), 8)])
def test_windows_are_turned_each_by_its_symmetry(spec, grid, count):
    turn, windows = RandomSymmetries(spec, Grid(grid), seed=1), batch(spec, grid)
    assert len(turn.elements) == count
    out = turn(windows | {"name": torch.arange(16)}, step=3)
    assert torch.equal(out["name"], torch.arange(16))
    for i, number in enumerate(turn.choice(3, 16).tolist()):
        element = turn.elements[number]
        for name in ("history", "future"):
            assert torch.equal(out[name][i : i + 1], element.act(spec.algebra, windows[name][i : i + 1]))
        assert torch.equal(out["parameters"][i : i + 1], element.turn(spec.algebra, windows["parameters"][i : i + 1]))


def test_what_is_parallel_stays_parallel():
    """A velocity along gravity is along it after every turn: fields, cells and parameters turn together."""
    turn = RandomSymmetries(PLANE, Grid((5, 5)), seed=0)
    gravity = torch.tensor([0.0, 1.0, 2.0, 0.0]).expand(32, 4)
    history = gravity.view(32, 1, 4, 1, 1).expand(-1, 3, -1, 5, 5)
    out = turn({"history": history, "parameters": gravity}, step=0)
    assert torch.equal(out["history"][:, 0, :, 2, 2], out["parameters"])
    assert len(out["parameters"].unique(dim=0)) == 8


def test_what_follows_goes_on_where_the_history_ends():
    """Blocks of a field that is the time itself are joined as before: a reversal of time would tear them apart."""
    turn = RandomSymmetries(SPACETIME, Grid((3, 4, 4)), seed=0)
    time = torch.arange(9.0).view(1, 3, 1, 3, 1, 1).expand(32, -1, 8, -1, 4, 4)
    out = turn({"history": time[:, :2], "future": time[:, 2:]}, step=0)
    strung = torch.cat([out["history"], out["future"]], 1).movedim(3, 2).flatten(1, 2).abs()
    assert torch.equal(strung.diff(dim=1), torch.ones(32, 8, 8, 4, 4))
    assert len(out["history"].flatten(1).unique(dim=0)) > 1  # some were turned: signs of blades differ


def test_the_choice_depends_on_seed_step_and_part_alone():
    def choice(seed, step, part=0):
        return RandomSymmetries(PLANE, Grid((4, 4)), seed).choice(step, 64, part)

    first = choice(0, 5)
    torch.randn(3)
    assert torch.equal(choice(0, 5), first)
    assert all(not torch.equal(choice(*other), first) for other in [(1, 5), (0, 6), (0, 5, 1)])
    everything = torch.cat([choice(0, step) for step in range(8)])
    assert torch.bincount(everything).min() > 30


def test_boundaries_that_break_a_symmetry_are_kept():
    grid = Grid((4, 4), 1.0, (("slip", "open"), "periodic"))
    assert len(RandomSymmetries(PLANE, grid, 0).elements) == 2
