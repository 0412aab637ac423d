import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.training.noise import InputNoise

SPEC = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])
SCALES = {"density": 2.0, "velocity": 0.5}


def batch(windows=8):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(windows, 2, 4, 32, 32, generator=generator) for name in ("history", "future")}


def test_noise_has_its_level_in_each_field():
    given = batch()
    found = InputNoise(SPEC, SCALES, 0.1, seed=0)(given, 3)
    change = (found["history"] - given["history"]).movedim(2, 0).flatten(1)
    torch.testing.assert_close(change.std(1), torch.tensor([0.2, 0.05, 0.05, 0.0]), rtol=0.03, atol=0)
    assert found["future"] is given["future"]


def test_noise_depends_on_seed_step_and_window_alone():
    given = batch()
    whole = InputNoise(SPEC, SCALES, 0.1, seed=0)(given, 3)["history"]
    parts = InputNoise(SPEC, SCALES, 0.1, seed=0, parts=2)
    for part in (0, 1):
        mine = {name: value[part::2] for name, value in given.items()}
        assert torch.equal(parts(mine, 3, part)["history"], whole[part::2])
    assert not torch.equal(InputNoise(SPEC, SCALES, 0.1, seed=1)(given, 3)["history"], whole)
    assert not torch.equal(InputNoise(SPEC, SCALES, 0.1, seed=0)(given, 4)["history"], whole)
