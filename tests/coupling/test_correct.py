"""A coarse solver with a correction that is trained in the loop, and gradients through hybrid steps."""

import math

import pytest
import torch

from cliffsteer import Stepper, Surrogate, rollout
from cliffsteer.coupling import Alternate, Correct, checkpointed_rollout
from cliffsteer.coupling.correction_training import (
    CorrectionConfig,
    CorrectionTraining,
    create_correction,
    train_correction,
)
from cliffsteer.coupling.transfer import transfer
from cliffsteer.normalization import Normalization
from cliffsteer.solvers import create
from cliffsteer.training.config import OptimizerConfig, ScheduleConfig

OPTIONS = {"size": 12.0, "dt": 0.5, "scale": 5.0, "buoyancy": (0.0, 0.3)}
MODEL = {"name": "resnet", "hidden_channels": 16, "blocks": [1], "kernel_size": 3, "norm": None}


def windows(solver, reference, seeds, future):
    """Frames of a finer solver, as far as a coarser one can show them."""
    state = reference.initial(seeds)
    frames = rollout(reference, reference.observe(state), 3 * future, state.parameters)
    frames = transfer(frames, reference.spec, reference.grid, solver.grid)
    shown = solver.restore(frames.flatten(0, 1)[:, None])
    frames = solver.observe(shown).view_as(frames)
    parameters = solver.spec.pack_parameters(state.parameters, len(frames))
    return [
        {"history": f[t : t + 1].float(), "future": f[t + 1 : t + 1 + future].float(), "parameters": p}
        for f, p in zip(frames, parameters, strict=True)
        for t in range(len(f) - future)
    ]


@pytest.fixture(scope="module")
def coarse():
    return create("smoke", resolution=12, **OPTIONS)


@pytest.fixture(scope="module")
def data(coarse):
    reference = create("smoke", resolution=24, **OPTIONS)
    return windows(coarse, reference, range(8), 3), windows(coarse, reference, range(50, 54), 3)


def mean_error(stepper, data):
    history, future = (torch.stack([w[key] for w in data]) for key in ("history", "future"))
    with torch.no_grad():
        return float((rollout(stepper, history, 3) - future).norm() / future.norm())


def test_a_correction_trained_through_the_solver_brings_it_closer_to_the_fine_one(coarse, data):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        correction = create_correction(MODEL, coarse, data[0])
    history, future = (torch.stack([w[key] for w in data[0]]) for key in ("history", "future"))
    error = coarse.spec.unpack(future[:, :1] - coarse.step(history))
    for name, value in error.items():
        assert correction.loss_scales[name] == pytest.approx(float(value.square().sum(2).mean().sqrt()), rel=1e-4)
    coupling = Correct(coarse, correction)
    assert isinstance(coupling, Stepper)
    settings = {"optimizer": OptimizerConfig(lr=1e-2), "schedule": ScheduleConfig(warmup_steps=5)}
    losses = train_correction(coupling, data[0], CorrectionConfig(steps=50, unroll=2, **settings))
    assert len(losses) == 50
    assert not correction.training
    assert mean_error(coupling, data[1]) < 0.75 * mean_error(coarse, data[1])
    out = coupling.step(history[:2])
    solved = coarse.step(history[:2])
    torch.testing.assert_close(out, correction.step(solved), rtol=0, atol=0)


def test_a_correction_may_read_the_frames_before(coarse, data):
    correction = create_correction(MODEL, coarse, data[0], history=3)
    coupling = Correct(coarse, correction)
    assert coupling.history == 2
    frames = data[0][0]["future"][None, :2]
    expected = correction.step(torch.cat([frames, coarse.step(frames)], 1))
    torch.testing.assert_close(coupling.step(frames), expected, rtol=0, atol=0)


def test_an_interrupt_amid_an_update_leaves_a_training_that_is_not_whole(coarse, data, monkeypatch):
    correction = create_correction(MODEL, coarse, data[0])
    training = CorrectionTraining(Correct(coarse, correction), data[0], CorrectionConfig(steps=2, unroll=1))
    training.advance()
    assert training.is_whole

    def interrupted(*_):
        raise KeyboardInterrupt

    for owner, name, whole in ((correction.network, "forward", True), (training.schedule, "step", False)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                training.advance()
        assert training.is_whole == whole
        assert training.step == 1


def test_checkpointing_changes_nothing_but_memory(coarse, data):
    def train(checkpoint):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            coupling = Correct(coarse, create_correction(MODEL, coarse, data[0]))
        config = CorrectionConfig(steps=2, unroll=3, batch_size=2, checkpoint=checkpoint, gradient_clip=0.5, seed=3)
        return train_correction(coupling, data[0], config)

    assert train(True) == pytest.approx(train(False), rel=1e-5)


def test_a_field_that_the_solver_gets_right_is_left_alone():
    solver = create("maxwell3d_yee", resolution=4, inclusions={"balls": 1}, dt=0.1)
    frames = solver.observe(solver.initial([0, 1]))
    truth = solver.step(frames)
    truth[:, :, 1:] *= 1.1  # the permittivity is the scalar
    packed = solver.spec.pack_parameters(solver.initial([0, 1]).parameters, 2)
    windows = [{"history": x, "future": y, "parameters": p} for x, y, p in zip(frames, truth, packed, strict=True)]
    correction = create_correction({**MODEL, "hidden_channels": 4}, solver, windows)
    out = Correct(solver, correction.double()).step(frames)
    assert torch.allclose(out[:, :, 0], frames[:, :, 0], rtol=1e-4)
    assert not torch.allclose(out[:, :, 1:], truth[:, :, 1:] / 1.1, rtol=1e-2)


def test_what_cannot_be_trained_is_refused(coarse, data):
    starts = [w["history"].double() for w in data[0][:2]]
    own = [{**data[0][0], "history": x, "future": coarse.step(x[None])[0]} for x in starts]
    with pytest.raises(ValueError, match="`solver` makes no error on these windows"):
        create_correction(MODEL, coarse, own)
    coupling = Correct(coarse, create_correction(MODEL, coarse, data[0]))
    with pytest.raises(ValueError, match=r"`windows` hold 3 frames of future: 1 before and `unroll` \(=9\) after"):
        train_correction(coupling, data[0], CorrectionConfig(unroll=9))
    with pytest.raises(ValueError, match="has a correction of type Smoke"):
        train_correction(Correct(coarse, coarse), data[0])
    next(coupling.correction.parameters()).data.fill_(math.nan)
    with pytest.raises(ValueError, match="the loss is not a number at step 1"):
        train_correction(coupling, data[0], CorrectionConfig(steps=1, unroll=1))
    with pytest.raises(ValueError, match="`correction` has a grid with shape"):
        Correct(coarse, create("smoke", resolution=16, **OPTIONS))
    several = Surrogate.create(MODEL, coarse.spec, coarse.grid, coarse.dt, 1, 2, Normalization.identity(coarse.spec))
    with pytest.raises(ValueError, match="`correction` predicts 2 frames"):
        Correct(coarse, several)


# ----------------------------------------------------------------------------------------------------- gradients


@pytest.fixture(scope="module")
def smoke_pair():
    """A solver with the parameters of `smoke`, and a network, in float64."""
    solver = create("smoke", resolution=8, size=8.0, dt=0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = {"name": "resnet", "hidden_channels": 4, "blocks": [1], "kernel_size": 3, "norm": None}
        scales = dict.fromkeys(("density", "velocity"), 0.1)
        normalization = Normalization(solver.spec, scales)
        surrogate = Surrogate.create(model, solver.spec, solver.grid, solver.dt, 1, 1, normalization).double().eval()
    return solver, surrogate


@pytest.mark.parametrize("kind", ["alternate", "correct"])
def test_gradients_through_hybrid_steps_are_those_of_finite_differences(smoke_pair, kind):
    solver, surrogate = smoke_pair
    hybrid = Alternate(solver, surrogate, 1, 1) if kind == "alternate" else Correct(solver, surrogate)
    state = solver.initial([0])
    frames = rollout(solver, solver.observe(state), 2)[:, -1:]
    weight = next(surrogate.parameters())
    inputs = [frames, torch.tensor([0.1, 0.4], dtype=torch.float64), weight.detach().clone()]
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in inputs]
    directions[0] = directions[0].masked_fill(~solver.spec.occupied.view(-1, 1, 1), 0)

    def value(x, buoyancy, advance=rollout):
        return advance(hybrid, x, 4, {"buoyancy": buoyancy})[:, -1].square().sum()

    def slope(advance):
        x, buoyancy = (part.clone().requires_grad_() for part in inputs[:2])
        gradients = torch.autograd.grad(value(x, buoyancy, advance), [x, buoyancy, weight])
        return sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def moved(t):
        with torch.no_grad():
            x, buoyancy, w = (part + t * d for part, d in zip(inputs, directions, strict=True))
            weight.copy_(w)
            out = float(value(x, buoyancy))
            weight.copy_(inputs[2])
        return out

    h = 1e-6
    assert abs(slope(rollout)) > 0.1
    assert slope(rollout) == pytest.approx((moved(h) - moved(-h)) / (2 * h), rel=1e-6)
    assert slope(checkpointed_rollout) == pytest.approx(slope(rollout), rel=1e-12)


def test_a_checkpointed_rollout_keeps_only_frames(smoke_pair):
    solver, surrogate = smoke_pair
    hybrid = Alternate(solver, surrogate, 1, 1)
    frames = solver.observe(solver.initial([0])).requires_grad_()
    kept = {}
    for advance in (rollout, checkpointed_rollout):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: (s.append(x.numel()), x)[1], lambda x: x):
            out = advance(hybrid, frames, 6)
        kept[advance] = sum(sizes)
        assert out.shape[1] == 6
    assert kept[checkpointed_rollout] < 0.1 * kept[rollout]
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        checkpointed_rollout(hybrid, frames, 0)
