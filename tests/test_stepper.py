import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper, rollout


class Fibonacci:
    """x_{t+1} = x_t + x_{t-1}, two frames at a time when asked."""

    history, dt = 2, 1.0

    def __init__(self, future=1):
        self.spec, self.grid, self.future = FieldSpec((1,), [Field("u", 0)]), Grid((3,)), future

    def step(self, frames, parameters=None):
        recent = [frames[:, -2:-1], frames[:, -1:]]
        for _ in range(self.future):
            recent.append(recent[-1] + recent[-2])
        return torch.cat(recent[2:], 1)


@pytest.mark.parametrize("future", [1, 2, 3])
def test_rollout_repeats_the_step(future):
    stepper = Fibonacci(future)
    assert isinstance(stepper, Stepper)
    frames = torch.ones(2, 2, 2, 3)
    frames[:, :, 1] = 0
    out = rollout(stepper, frames, 5)
    assert out.shape == (2, 5, 2, 3)
    assert out[0, :, 0, 0].tolist() == [2, 3, 5, 8, 13]


def test_rollout_reads_only_the_last_history_frames():
    frames = torch.ones(1, 4, 2, 3)
    frames[:, :2] = 100
    assert rollout(Fibonacci(), frames, 1).max() == 2


def test_errors():
    stepper = Fibonacci()
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        rollout(stepper, torch.ones(1, 2, 2, 3), 0)
    with pytest.raises(ValueError, match=r"`frames` holds 1 frame\(s\), but the stepper reads 2"):
        rollout(stepper, torch.ones(1, 1, 2, 3), 1)
    with pytest.raises(ValueError, match=r"the axes after \(batch, time, blade\) must be the grid's, \(3,\)"):
        rollout(stepper, torch.ones(1, 2, 2, 4), 1)
    with pytest.raises(ValueError, match=r"expected \(batch, time, 2, X1\)"):
        rollout(stepper, torch.ones(1, 2, 4, 3), 1)
