import pytest

from cliffsteer.training.config import LossConfig, ScheduleConfig, TrainConfig, TrainerConfig
from cliffsteer.training.guard import MEMORY, DivergenceError, Guard


def guard(**trainer):
    return Guard(TrainConfig(trainer=TrainerConfig(divergence_factor=10.0, divergence_steps=5, **trainer)))


def feed(guard, losses, start=0, task=1):
    for step, loss in enumerate(losses, start):
        guard.check_loss(loss, step, task)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_stops_at_once(loss):
    with pytest.raises(DivergenceError, match=r"^Training diverged: the loss is not a number at step 8; try a smaller"):
        guard().check_loss(loss, 7)


def test_a_loss_far_above_its_best_for_long_stops():
    watched = guard()
    feed(watched, [1e3] * 5 + [1.0] * 300)  # high at the start is no divergence
    assert not watched.too_high
    with pytest.raises(
        DivergenceError, match=r"the loss \(=\d+\.?\d*\) has been more than 10 times its best \(1\) for 5"
    ):
        feed(watched, [100.0] * 10, start=305)
    assert watched.too_high


def test_a_loss_that_comes_down_again_goes_on():
    watched = guard()
    feed(watched, [1.0] * 50 + [100.0] * 2)
    assert watched.too_high
    feed(watched, [1.0] * 200)
    assert not watched.too_high


def test_single_batches_and_an_off_switch_stop_nothing():
    feed(guard(), [1.0] * 50 + [150.0] + [1.0] * 50)
    never = Guard(TrainConfig(trainer=TrainerConfig(divergence_factor=0.0, divergence_steps=1)))
    feed(never, [1.0] * 50 + [1e9] * 50)


def test_a_longer_unrolling_is_another_task():
    watched = guard()
    feed(watched, [1.0] * 50)
    feed(watched, [100.0] * 50, start=50, task=2)
    assert not watched.too_high


def test_its_state_goes_on_where_it_was():
    losses = [1.0] * MEMORY + [60.0] * 4
    first, second = guard(), guard()
    feed(first, losses)
    second.load_state_dict(first.state_dict())
    for watched in (first, second):
        with pytest.raises(DivergenceError, match="at step 28;"):
            feed(watched, [60.0] * 20, start=len(losses))


def test_advice_fits_the_run():
    config = TrainConfig(
        loss=LossConfig("unrolled", unroll=3), trainer=TrainerConfig(precision="bf16-mixed", gradient_clip=0.0)
    )
    with pytest.raises(DivergenceError) as caught:
        Guard(config).check_loss(float("nan"), 0)
    tips = ("a smaller `optimizer.lr`, `trainer.gradient_clip=1`, a longer `loss.curriculum`, or `precision=float32`",)
    assert tips[0] in str(caught.value)
    with pytest.raises(DivergenceError, match=r"or a longer `schedule.warmup_steps`, and check the data"):
        Guard(TrainConfig(schedule=ScheduleConfig(warmup_steps=0))).check_loss(float("nan"), 0)
