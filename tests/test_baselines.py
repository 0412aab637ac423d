import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper, rollout
from cliffsteer.baselines import Persistence

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
