import math

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.coupling.guards import Courant, Disagreement, Energy, Finite, Novelty, Residual, Violation, tripped
from cliffsteer.projection import DivergenceFree, PreserveMean
from cliffsteer.solvers import create

SPEC = FieldSpec(
    (1, 1), [Field("density", 0), Field("velocity", 1, "m/s"), Field("lift", 1, "m/s^2", "parameter", (0.0, 1.0))]
)
GRID = Grid((8, 8), (0.5, 0.25))


def frames(density=1.0, velocity=(0.0, 0.0), batch=2):
    out = torch.zeros(batch, 1, 4, 8, 8, dtype=torch.float64)
    out[:, :, 0] = density
    out[:, :, 1], out[:, :, 2] = velocity
    return out


def test_finite_counts_what_is_not():
    proposed = frames()
    proposed[1, 0, 2, 3, 3] = math.nan
    score = Finite().score(frames(), proposed)
    assert score.tolist() == [0, 1 / 256]
    assert tripped(Finite(), score).tolist() == [False, True]


def test_a_score_that_is_no_number_trips():
    assert tripped(Finite(), torch.tensor([math.nan, 0.0])).tolist() == [True, False]


def test_courant_is_in_cells_a_step():
    score = Courant(SPEC, GRID, 0.5).score(frames(), frames(velocity=(1.0, -2.0)))
    assert score.tolist() == [5, 5]


def test_violations_are_relative_to_the_scale():
    before = frames(2.0)
    assert Violation(PreserveMean(SPEC, "density"), "mean", 4.0).score(before, frames(3.0)).tolist() == [0.25, 0.25]
    guard = Violation(DivergenceFree(SPEC, GRID), "divergence", 1.0)
    assert guard.name == "divergence:velocity"
    x = GRID.coordinates()[0]
    compressed = frames(velocity=(torch.sin(2 * torch.pi * x / 4), 0.0))
    assert guard.score(before, compressed).tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert guard.score(before, frames(velocity=(1.0, 2.0))).tolist() == pytest.approx([0, 0], abs=1e-12)


def test_energy_is_compared_with_each_frame_before():
    guard = Energy(SPEC, "velocity", 2.0)
    proposed = torch.cat([frames(velocity=(3.0, 4.0)), frames(velocity=(0.0, 5.0))], 1)
    assert guard.score(frames(velocity=(1.0, 0.0)), proposed).tolist() == [6, 6]


def test_the_residual_tells_the_solver_from_others():
    solver = create("turbulence", resolution=16, scale=4.0, dt=0.05, substeps=2)
    short = create("turbulence", resolution=16, scale=4.0, dt=0.001, substeps=1)
    state = solver.initial([0, 1])
    before = solver.observe(state)
    right = solver.observe(solver.advance(state))
    change = solver.spec.unpack(right - before)
    guard = Residual(short, solver.dt, {name: float(v.square().sum(2).mean().sqrt()) for name, v in change.items()})
    still, twice = before.clone(), 2 * right - before
    scores = [guard.score(before, x) for x in (right, still, twice)]
    assert float(scores[0].max()) < 0.03
    assert min(float(s.min()) for s in scores[1:]) > 0.3
    broken = right.clone()
    broken[1, 0, 0, 0, 0] = math.nan
    assert guard.score(before, broken).isnan().tolist() == [False, True]
    both = guard.score(before, torch.cat([right, right], 1))
    assert float(both.min()) > 0.3  # nothing moves in the second step


def test_an_ensemble_disagrees_where_its_members_differ():
    class Shifted:
        spec, grid, dt, history = SPEC, GRID, 1.0, 1

        def step(self, frames, parameters=None):
            return frames + torch.tensor([0.0, 3.0]).view(2, 1, 1, 1, 1) * SPEC.occupied.view(4, 1, 1)

    guard = Disagreement([Shifted()], {"density": 1.0, "velocity": 1.0})
    score = guard.score(frames(), frames())
    # two members 3 apart have standard deviation 3/√2; density has one component, velocity two
    assert score.tolist() == pytest.approx([0, math.sqrt((4.5 + 9) / 2)])
    with pytest.raises(ValueError, match="`members` is empty"):
        Disagreement([], {})


def test_novelty_is_small_where_the_data_were_and_does_not_see_turns():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(64, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    data[:, :, 3] = 0
    lift = torch.nn.functional.normalize(torch.randn(64, 2, generator=generator, dtype=torch.float64), dim=1)
    guard = Novelty(SPEC, {"density": 1.0, "velocity": 1.4})
    with pytest.raises(ValueError, match="`Novelty` knows no data yet"):
        guard.score(data, data)
    guard.fit(guard.features(data, {"lift": lift}))
    usual = guard.score(data, data, {"lift": lift})
    assert float(usual.max()) < 6
    turned = torch.stack([data[:, :, 0], -data[:, :, 2], data[:, :, 1], data[:, :, 3]], 2).transpose(3, 4).flip(3)
    torch.testing.assert_close(guard.score(turned, turned, {"lift": lift.flip(1)}), usual, rtol=1e-9, atol=1e-9)
    smooth = data.cumsum(3).cumsum(4)
    assert float(guard.score(smooth, smooth, {"lift": lift}).min()) > 2 * float(usual.max())
    assert float(guard.score(data, data, {"lift": 1.2 * lift}).min()) > 2 * float(usual.max())
    again = Novelty(SPEC, guard.scales, **guard.state())
    torch.testing.assert_close(again.score(data, data, {"lift": lift}), usual, rtol=1e-12, atol=1e-12)
