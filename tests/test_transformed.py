"""Turned windows hold solutions of the same system, and boosted waves the same waves."""

import pytest
import torch
from torch.utils.data import Dataset

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid
from cliffsteer.solvers.plane_waves import boost
from cliffsteer.transformed import BoostedWaves, TurnedWindows, turning_symmetries

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("v", 1), Field("force", 1, role="parameter")])
GRID = Grid((6, 6))


class Windows(Dataset):
    """Three windows of noise."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        sizes = {"history": (2, 4, 6, 6), "future": (1, 4, 6, 6), "parameters": (4,)}
        return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def test_every_window_is_turned_by_one_symmetry_or_by_all():
    assert len(TurnedWindows(Windows(), SPEC, GRID)) == 3
    every = TurnedWindows(Windows(), SPEC, GRID, "all")
    assert len(every) == 3 * 7
    seen = {tuple(every[i]["history"].flatten().tolist()) for i in range(21)}
    assert len(seen) == 21
    assert len(list(every)) == 21
    with pytest.raises(IndexError, match="there are 21 windows"):
        every[21]


def test_history_future_and_parameters_turn_alike():
    windows = TurnedWindows(Windows(), SPEC, GRID)
    for i, g in enumerate(windows.symmetries[:3]):
        turned, item = windows[i], Windows()[i]
        for name in ("history", "future"):
            torch.testing.assert_close(turned[name][None], g.act(SPEC.algebra, item[name][None]))
        matrix = g.matrix.float()
        torch.testing.assert_close(turned["parameters"][1:3], matrix @ item["parameters"][1:3])
        assert turned["parameters"][0] == item["parameters"][0]


def test_time_is_never_reversed_and_walls_that_differ_are_kept():
    spacetime = CliffordAlgebra((1, -1, -1))
    elements = turning_symmetries(spacetime, Grid((4, 6, 6)))
    assert len(elements) == 7
    assert all(g.signs[0] > 0 and g.axes[0] == 0 for g in elements)
    assert len(turning_symmetries(SPEC.algebra, Grid((6, 6), 1.0, (("slip", "open"), "slip")))) == 1
    assert not turning_symmetries(CliffordAlgebra((1,)), Grid((4,), 1.0, [("slip", "open")]))
    with pytest.raises(ValueError, match="no symmetry that could turn a window"):
        TurnedWindows(Windows(), SPEC, Grid((6, 5), 1.0, (("slip", "open"), ("open", "slip"))))
    with pytest.raises(ValueError, match=r"`which` \(='none'\) must be 'one' or 'all'"):
        TurnedWindows(Windows(), SPEC, GRID, "none")


def test_boosted_waves_are_the_same_field_at_the_same_events():
    """With a tiny grid around a point x' of the moving frame, the field is that at the event Λ⁻¹x' at rest."""
    velocity, grid = (0.6,), Grid((2, 2), 1e-7, "open")
    moving = BoostedWaves(grid, velocity, 4, mass=2.0)[3]["history"][0]
    still = BoostedWaves(grid, (0.0,), 4, mass=2.0)[3]["history"][0]
    torch.testing.assert_close(moving[0], still[0], rtol=0, atol=1e-5)  # φ is a scalar, the centre is the origin
    gradient = boost(velocity).float() @ still[1:3].flatten(1)
    torch.testing.assert_close(moving[1:3].flatten(1), gradient, rtol=0, atol=1e-4)


def test_boosted_blocks_follow_each_other_and_solve_the_equation():
    mass, h, grid = 3.0, 0.05, Grid((3, 3, 3), 0.05, "open")
    window = BoostedWaves(grid, (0.3, -0.4), 1, history=1, future=1, mass=mass, wavelengths=(4.0, 8.0))[0]
    phi = torch.cat([window["history"], window["future"]])[:, 0].flatten(0, 1).double()  # six points of time

    def second(axis):
        a, b, c = (phi.narrow(axis, i, phi.shape[axis] - 2) for i in range(3))
        return (a - 2 * b + c) / h**2

    waves = second(0)[:, 1, 1] - second(1)[1:-1, 0, 1] - second(2)[1:-1, 1, 0]
    torch.testing.assert_close(waves, -(mass**2) * phi[1:-1, 1, 1], rtol=0, atol=0.05)
    assert float(phi.abs().max()) > 0.3


def test_boosted_waves_refuse_what_does_not_fit():
    grid = Grid((2, 2, 2))
    with pytest.raises(ValueError, match=r"must have 2 component\(s\)"):
        BoostedWaves(grid, (0.1,), 1)
    with pytest.raises(ValueError, match="below 1, the speed of light"):
        BoostedWaves(grid, (0.8, 0.8), 1)
    with pytest.raises(ValueError, match=r"`count` \(=0\) must be at least 1"):
        BoostedWaves(grid, (0.0, 0.0), 0)
    with pytest.raises(IndexError, match="there are 2 windows"):
        BoostedWaves(grid, (0.0, 0.0), 2)[2]
