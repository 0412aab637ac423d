import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper, rollout
from cliffsteer.coupling import CoarseToFine, Refined
from cliffsteer.coupling.transfer import transfer
from cliffsteer.projection import DivergenceFree
from cliffsteer.solvers import create

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])


def test_periodic_fields_go_there_and_back():
    solver = create("turbulence", resolution=24, scale=4.0)
    frames = solver.observe(solver.initial([0, 1]))
    fine = Grid((48, 48), tuple(h / 2 for h in solver.grid.spacing), "periodic", "m")
    there = transfer(frames, solver.spec, solver.grid, fine)
    assert there.shape == (2, 1, 4, 48, 48)
    torch.testing.assert_close(transfer(there, solver.spec, fine, solver.grid), frames, rtol=0, atol=1e-12)


def test_between_walls_cells_are_averaged_and_interpolated():
    coarse, fine = Grid((4, 6), 2.0, "no_slip"), Grid((8, 12), 1.0, "no_slip")
    x, y = fine.coordinates()
    linear = SPEC.pack({"density": (2 * x - y)[None, None], "velocity": torch.stack([x, y])[None, None]})
    small = transfer(linear, SPEC, fine, coarse)
    cx, cy = coarse.coordinates()
    torch.testing.assert_close(small[0, 0, 0], 2 * cx - cy)
    back = transfer(small, SPEC, coarse, fine)
    torch.testing.assert_close(back[..., 1:-1, 1:-1], linear[..., 1:-1, 1:-1])
    ones = transfer(torch.ones_like(small), SPEC, coarse, fine)
    assert torch.equal(ones[:, :, 0], torch.ones_like(ones[:, :, 0]))  # smoke goes on behind a wall
    assert torch.equal(ones[:, :, 1, 0, 1:-1], torch.full_like(ones[:, :, 1, 0, 1:-1], 0.75))  # a velocity does not


def test_grids_of_different_domains_are_refused():
    frames = torch.zeros(1, 1, 4, 8, 8)
    grid = Grid((8, 8), 1.0, "slip")
    for target, message in [
        (Grid((8, 8), 2.0, "slip"), r"`target` has extent \(16.0, 16.0\), expected \(8.0, 8.0\)"),
        (Grid((8, 8), 1.0, "no_slip"), "`target` has boundary"),
        (Grid((8, 8), 1.0, "slip", "km"), "`target` has unit"),
        (Grid((12, 12), 8 / 12, "slip"), r"`target` has \(12, 12\) cells and the grid \(8, 8\): with walls"),
    ]:
        with pytest.raises(ValueError, match=message):
            transfer(frames, SPEC, grid, target)


class Still:
    history = 1

    def __init__(self, like):
        self.spec, self.grid, self.dt = like.spec, like.grid, like.dt

    def step(self, frames, parameters=None):
        return frames[:, -1:]


def test_a_refined_stepper_moves_what_the_coarse_grid_shows():
    fine, coarse = (create("turbulence", resolution=n, scale=4.0) for n in (32, 16))
    frames = fine.observe(fine.initial([0]))
    assert torch.equal(Refined(Still(coarse), fine.grid).step(frames), frames)
    refined = Refined(coarse, fine.grid, [DivergenceFree(fine.spec, fine.grid)])
    assert isinstance(refined, Stepper)
    truth = fine.step(frames)
    assert float((refined.step(frames) - truth).norm()) < 0.1 * float((frames - truth).norm())
    torch.testing.assert_close(
        refined.step(frames), DivergenceFree(fine.spec, fine.grid)(refined.step(frames)), rtol=0, atol=1e-12
    )


def test_coarse_to_fine_is_finished_by_the_solver():
    fine, coarse = (create("smoke", resolution=n) for n in (16, 8))
    frames = rollout(fine, fine.observe(fine.initial([0, 1])), 2)
    law = DivergenceFree(fine.spec, fine.grid)
    coupling = CoarseToFine(fine, coarse, 2, 1, [law])
    assert (coupling.spec, coupling.grid, coupling.dt, coupling.history) == (fine.spec, fine.grid, fine.dt, 1)
    out = coupling.step(frames)
    torch.testing.assert_close(out[:, :2], rollout(Refined(coarse, fine.grid, [law]), frames, 2), rtol=0, atol=0)
    torch.testing.assert_close(out[:, 2:], fine.step(out[:, 1:2]), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"`solver_steps` \(=0\) must be .*at least 1"):
        CoarseToFine(fine, coarse, 1, 0)
    with pytest.raises(ValueError, match="both must advance by the same time"):
        CoarseToFine(fine, create("smoke", resolution=8, dt=1.0))


def test_projections_are_for_the_fine_grid():
    fine, coarse = (create("smoke", resolution=n) for n in (16, 8))
    message = r"`projections` holds one for Grid\(shape=\(8, 8\).*, but the stepper has Grid\(shape=\(16, 16\)"
    for make in (lambda laws: Refined(coarse, fine.grid, laws), lambda laws: CoarseToFine(fine, coarse, 1, 1, laws)):
        with pytest.raises(ValueError, match=message):
            make([DivergenceFree(fine.spec, coarse.grid)])
        with pytest.raises(ValueError, match="`projections` holds one for FieldSpec"):
            make([DivergenceFree(SPEC, fine.grid)])


def test_no_stepper_is_refined_to_fewer_cells():
    fine, coarse = (create("turbulence", resolution=n, scale=4.0) for n in (32, 16))
    message = r"`grid` \(=\(16, 16\) cells\) must have at least the \(32, 32\) cells of the stepper along each axis"
    with pytest.raises(ValueError, match=message):
        Refined(fine, coarse.grid)
    with pytest.raises(ValueError, match=message):
        CoarseToFine(coarse, fine)
    assert Refined(fine, fine.grid).grid == fine.grid
