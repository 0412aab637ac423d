import pytest
import torch

from cliffsteer import Field, FieldSpec, Stepper, rollout
from cliffsteer.coupling import Alternate, Repeated
from cliffsteer.solvers import create


class Extrapolation:
    """Linear extrapolation in time, ``future`` frames from two."""

    history = 2

    def __init__(self, like: Stepper, future: int = 1):
        self.spec, self.grid, self.dt, self.future = like.spec, like.grid, like.dt, future

    def step(self, frames, parameters=None):
        last, change = frames[:, -1:], frames[:, -1:] - frames[:, -2:-1]
        return torch.cat([last + (k + 1) * change for k in range(self.future)], 1)


@pytest.fixture
def solver():
    return create("smoke", resolution=12)


@pytest.fixture
def frames(solver):
    return rollout(solver, solver.observe(solver.initial([0, 1])), 4)


def test_a_cycle_takes_turns(solver, frames):
    hybrid = Alternate(solver, Extrapolation(solver), solver_steps=2, surrogate_steps=3)
    assert isinstance(hybrid, Stepper)
    assert (hybrid.spec, hybrid.grid, hybrid.dt, hybrid.history) == (solver.spec, solver.grid, solver.dt, 2)
    out = hybrid.step(frames)
    assert out.shape == (2, 5, *frames.shape[2:])
    torch.testing.assert_close(out[:, :2], rollout(solver, frames, 2), rtol=0, atol=0)
    change = out[:, 1:2] - out[:, :1]
    expected = torch.cat([out[:, 1:2] + k * change for k in (1, 2, 3)], 1)
    torch.testing.assert_close(out[:, 2:], expected, rtol=1e-12, atol=1e-12)


def test_its_rollout_starts_each_cycle_with_the_solver(solver, frames):
    hybrid = Alternate(solver, Extrapolation(solver), 1, 2)
    long = rollout(hybrid, frames, 7)
    torch.testing.assert_close(long[:, 3:4], solver.step(long[:, 2:3]), rtol=0, atol=0)
    torch.testing.assert_close(long[:, 6:7], solver.step(long[:, 5:6]), rtol=0, atol=0)
    torch.testing.assert_close(long[:, :3], hybrid.step(frames), rtol=0, atol=0)
    assert torch.equal(hybrid.step(frames), hybrid.step(frames))


def test_a_solver_with_itself_is_itself(solver, frames):
    parameters = {"buoyancy": (0.2, -0.1)}
    torch.testing.assert_close(
        rollout(Alternate(solver, solver, 2, 1), frames, 7, parameters),
        rollout(solver, frames, 7, parameters),
        rtol=0,
        atol=0,
    )


def test_a_surrogate_that_predicts_several_frames_is_cut_to_its_turn(solver, frames):
    one = Alternate(solver, Extrapolation(solver), 1, 3).step(frames)
    several = Alternate(solver, Extrapolation(solver, future=2), 1, 3).step(frames)
    assert several.shape == one.shape
    torch.testing.assert_close(several, one, rtol=1e-12, atol=1e-12)


def test_precision_is_that_of_the_frames(solver, frames):
    assert Alternate(solver, Extrapolation(solver), 1, 1).step(frames.float()).dtype == torch.float32


def test_repeated(solver, frames):
    double = Repeated(solver, 2)
    assert isinstance(double, Stepper)
    assert double.dt == 2 * solver.dt
    torch.testing.assert_close(rollout(double, frames, 2), rollout(solver, frames, 4)[:, 1::2], rtol=0, atol=0)
    slow = Extrapolation(double)
    assert Alternate(double, slow, 1, 1).dt == 3.0


def test_steppers_that_do_not_match_are_refused(solver):
    other = Extrapolation(solver)
    with pytest.raises(ValueError, match=r"`surrogate_steps` \(=0\) must be a whole number, at least 1"):
        Alternate(solver, other, 1, 0)
    with pytest.raises(ValueError, match=r"`solver` has dt 1.5 and `surrogate` dt 3: .* Repeated"):
        Alternate(solver, Repeated(solver, 2), 1, 1)
    with pytest.raises(ValueError, match=r"`surrogate` has a grid with shape \[16, 16\], expected \[12, 12\]"):
        Alternate(solver, create("smoke", resolution=16), 1, 1)
    with pytest.raises(ValueError, match=r"differ in field 'viscosity': .*0.01.* against .*0.02"):
        Alternate(solver, create("smoke", resolution=12, viscosity=0.02), 1, 1)
    other.spec = FieldSpec((1, 1), [*solver.spec.fields, Field("heat", 0)])
    with pytest.raises(ValueError, match="differ in field 'heat': absent against"):
        Alternate(solver, other, 1, 1)
    other.spec = FieldSpec((1, 1), solver.spec.fields[::-1])
    with pytest.raises(ValueError, match="different orders"):
        Alternate(solver, other, 1, 1)
    other.spec = FieldSpec((1, -1), solver.spec.fields)
    with pytest.raises(ValueError, match="both must have one signature"):
        Alternate(solver, other, 1, 1)
    with pytest.raises(ValueError, match=r"`times` \(=0\) must be a whole number, at least 1"):
        Repeated(solver, 0)
    with pytest.raises(ValueError, match="`stepper` reads 2 frames: only one that reads a single frame"):
        Repeated(Extrapolation(solver), 2)


def test_frames_that_do_not_fit_are_refused(solver, frames):
    hybrid = Alternate(solver, Extrapolation(solver), 1, 1)
    with pytest.raises(ValueError, match=r"holds 1 frame\(s\), but the stepper reads 2"):
        hybrid.step(frames[:, :1])
    with pytest.raises(ValueError, match="must be the grid's"):
        hybrid.step(frames[..., :8])
