import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper, rollout, solvers
from cliffsteer.baselines import CoarseSolver, Persistence
from cliffsteer.functional import block_mean

SPEC = FieldSpec((1, 1), [Field("density", 0)])


def test_persistence_repeats_the_last_frame_where_fields_live():
    stepper = Persistence(SPEC, Grid((4, 4)), 1.0)
    assert isinstance(stepper, Stepper)
    frames = torch.randn(2, 3, 4, 4, 4)
    out = rollout(stepper, frames, 2)
    assert torch.equal(out[:, :, 0], frames[:, -1:, 0].expand(-1, 2, -1, -1))
    assert out[:, :, 1:].eq(0).all()


def test_persistence_of_another_stepper_shares_its_fields_and_grid():
    first = Persistence(SPEC, Grid((4, 4)), 0.25)
    second = Persistence.of(first)
    assert (second.spec, second.grid, second.dt) == (SPEC, Grid((4, 4)), 0.25)


def test_persistence_refuses_frames_of_another_grid():
    with pytest.raises(ValueError, match="the axes after"):
        Persistence(SPEC, Grid((4, 4)), 1.0).step(torch.zeros(1, 1, 4, 5, 4))


def smoke(resolution: int, dt: float = 1.5):
    return solvers.create("smoke", resolution=resolution, dt=dt)


@pytest.mark.parametrize(("coarse", "dt"), [(16, 1.5), (8, 1.5), (16, 0.75)])
def test_a_coarse_rollout_is_that_of_the_coarse_solver(coarse, dt):
    fine, small = smoke(32), smoke(coarse, dt)
    stepper, factor, substeps = CoarseSolver(fine, small), 32 // coarse, round(1.5 / dt)
    assert isinstance(stepper, Stepper)
    assert (stepper.factor, stepper.substeps, stepper.dt) == (factor, substeps, 1.5)
    frames = fine.observe(fine.initial([0, 1])).double()
    expected = rollout(small, block_mean(frames, factor, 2), 3 * substeps)[:, substeps - 1 :: substeps]
    produced = rollout(stepper, frames, 3)
    assert produced.shape == (2, 3, *frames.shape[2:])
    assert torch.allclose(block_mean(produced, factor, 2), expected, atol=1e-12)


def test_a_finer_coarse_solver_comes_nearer_to_the_fine_one():
    fine = smoke(32)
    frames = fine.observe(fine.initial([0]))
    truth = rollout(fine, frames, 2)
    errors = [(rollout(CoarseSolver(fine, smoke(n)), frames, 2) - truth).norm() for n in (8, 16, 32)]
    assert errors[0] > 1.3 * errors[1]
    assert errors[2] < 1e-4 * truth.norm()


def test_interpolation_shows_no_blocks_of_a_smooth_field():
    """Repeated cells would be off by half a coarse cell's rise; interpolated ones by its square."""
    grid = Grid((64, 64), 1 / 64, "periodic")
    stepper = CoarseSolver(Persistence(SPEC, grid, 1.0), Persistence(SPEC, grid.coarsened(4), 1.0))
    wave = torch.sin(2 * torch.pi * torch.arange(64, dtype=torch.float64) / 64).expand(64, 64)
    frames = torch.zeros(1, 1, 4, 64, 64, dtype=torch.float64)
    frames[0, 0, 0] = wave
    assert (stepper.step(frames) - frames).abs().max() < 0.03


@pytest.mark.parametrize(
    ("coarse", "message"),
    [
        (Persistence(FieldSpec((1, 1), [Field("velocity", 1)]), Grid((4, 4), 2.0), 1.0), "`coarse` has other fields"),
        (Persistence(SPEC, Grid((3, 3), 2.0), 1.0), r"has the grid Grid\(.*which is not that of `solver`"),
        (Persistence(SPEC, Grid((4, 4), 1.0), 1.0), r"has the grid Grid\(.*which is not that of `solver`"),
        (Persistence(SPEC, Grid((4, 4), 2.0), 0.3), r"has the time step 0.3, which is no whole fraction of .* \(1.0\)"),
    ],
)
def test_coarse_solvers_must_fit(coarse, message):
    with pytest.raises(ValueError, match=message):
        CoarseSolver(Persistence(SPEC, Grid((8, 8)), 1.0), coarse)
