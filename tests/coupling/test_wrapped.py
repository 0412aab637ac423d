import numpy as np
import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper, rollout
from cliffsteer.coupling import Alternate, Wrapped

SPEC = FieldSpec((1, 1), [Field("heat", 0), Field("flow", 1, "m/s")])
DRIVEN = FieldSpec((1, 1), [*SPEC.fields, Field("wind", 1, "m/s", "parameter", (1.0, 2.0))])
GRID = Grid((4, 5))


def frames(spec=SPEC):
    generator = torch.Generator().manual_seed(0)
    out = torch.randn(3, 2, spec.n_blades, 4, 5, dtype=torch.float64, generator=generator)
    return out.masked_fill(~spec.occupied.view(-1, 1, 1), 0)


def decay(state):
    return {"heat": 0.5 * state["heat"], "flow": state["flow"][:, ::-1]}


def test_a_function_of_numpy_arrays():
    seen = {}

    def step(state):
        seen.update({name: (type(value), value.shape, value.dtype) for name, value in state.items()})
        return decay(state)

    stepper = Wrapped(step, SPEC, GRID, 0.5, arrays="numpy")
    assert isinstance(stepper, Stepper)
    out = stepper.step(frames())
    assert seen["heat"] == (np.ndarray, (3, 4, 5), np.float64)
    assert seen["flow"] == (np.ndarray, (3, 2, 4, 5), np.float64)
    expected = frames()[:, -1:]
    expected[:, :, 0] *= 0.5
    expected[:, :, 1:3] = expected[:, :, 1:3].flip(2)
    assert torch.equal(out, expected)
    assert stepper.step(frames().float()).dtype == torch.float32
    in_double = Wrapped(step, SPEC, GRID, 0.5, arrays="numpy", dtype=torch.float64)
    in_double.step(frames().float())
    assert seen["heat"][2] == np.float64


def test_gradients_go_through_a_function_of_torch():
    stepper = Wrapped(lambda s: {"heat": s["heat"] ** 2, "flow": 3 * s["flow"]}, SPEC, GRID, 1.0)
    x = frames()[:, -1:].requires_grad_()
    stepper.step(x).sum().backward()
    torch.testing.assert_close(x.grad[:, :, 0], 2 * x.detach()[:, :, 0])
    assert x.grad[:, :, 1:3].eq(3).all()


def test_one_trajectory_at_a_time_with_parameters():
    def step(state, parameters):
        assert state["heat"].shape == (4, 5)
        assert parameters["wind"].shape == (2,)
        state["flow"] += parameters["wind"].reshape(2, 1, 1)  # in place: frames stay as they are
        return state

    stepper = Wrapped(step, DRIVEN, GRID, 1.0, arrays="numpy", batched=False)
    x = frames(DRIVEN)
    kept = x.clone()
    wind = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    out = stepper.step(x, {"wind": wind})
    assert torch.equal(x, kept)
    torch.testing.assert_close(out[:, 0, 1:3] - x[:, -1, 1:3], wind.double().view(3, 2, 1, 1).expand(-1, -1, 4, 5))


def test_it_couples_like_any_other():
    one = Wrapped(lambda s: {"heat": s["heat"] + 1, "flow": s["flow"]}, SPEC, GRID, 1.0)
    two = Wrapped(lambda s: {"heat": s["heat"] + 10, "flow": s["flow"]}, SPEC, GRID, 1.0)
    out = rollout(Alternate(one, two, 1, 2), frames(), 4)
    assert (out - frames()[:, -1:])[0, :, 0, 0, 0].tolist() == pytest.approx([1, 11, 21, 22])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"`arrays` \(='jax'\) must be one of 'torch', 'numpy'"):
        Wrapped(decay, SPEC, GRID, 1.0, arrays="jax")
    with pytest.raises(ValueError, match=r"`dt` \(=0\) must be a positive number"):
        Wrapped(decay, SPEC, GRID, 0)
    with pytest.raises(ValueError, match="`step` returned a tuple"):
        Wrapped(lambda s: (s["heat"],), SPEC, GRID, 1.0).step(frames())
    with pytest.raises(ValueError, match=r"returned 'heat' with shape \(3, 4\), expected \(3, 4, 5\)"):
        Wrapped(lambda s: {**s, "heat": s["heat"].sum(2)}, SPEC, GRID, 1.0).step(frames())
    with pytest.raises(ValueError, match="`values` lacks the dynamic field 'flow'"):
        Wrapped(lambda s: {"heat": s["heat"]}, SPEC, GRID, 1.0).step(frames())


@pytest.mark.parametrize("dt", [float("inf"), float("nan"), "1"])
def test_a_time_step_is_a_positive_number(dt):
    with pytest.raises(ValueError, match=r"`dt` .* must be a positive number"):
        Wrapped(decay, SPEC, GRID, dt)


@pytest.mark.parametrize(
    ("value", "message"),
    [(1j, "`step` returned complex numbers for 'heat'"), ("warm", "`step` returned what is no array of numbers")],
)
@pytest.mark.parametrize("arrays", ["numpy", "torch"])
def test_what_is_no_real_number_is_refused(value, message, arrays):
    def step(state):
        return {**state, "heat": value * state["heat"] if isinstance(value, complex) else value}

    with pytest.raises(ValueError, match=message):
        Wrapped(step, SPEC, GRID, 1.0, arrays=arrays).step(frames())
