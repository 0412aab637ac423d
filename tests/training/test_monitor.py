"""What is told about the speed of a training."""

import statistics
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import At, scalars

from cliffsteer import Surrogate
from cliffsteer.commands.runs import read_scalars
from cliffsteer.datasets import TrajectoryDataset, WindowDataset, compute_statistics
from cliffsteer.training import engine, train
from cliffsteer.training.data import WindowData
from cliffsteer.training.module import SurrogateModule
from cliffsteer.training.monitor import Monitor

PAUSE = 0.05


class SlowWindows(WindowDataset):
    def __getitem__(self, index):
        time.sleep(PAUSE)
        return super().__getitem__(index)


class SlowModule(SurrogateModule):
    def training_step(self, batch, batch_idx):
        time.sleep(PAUSE * len(batch["history"]))
        return super().training_step(batch, batch_idx)


def waiting_share(config, out, windows, module):
    """The median over steps of a run with these classes."""
    data = TrajectoryDataset(config.data.root, "train")
    model, part = {"name": config.model.name, **config.model.options}, windows(data, 2, 1)
    surrogate = Surrogate.create(model, data.spec, data.grid, data.dt, 2, 1, compute_statistics(data))
    trainer = engine._trainer(config, out, 0, [Monitor(config.data.batch_size)])
    trainer.fit(module(surrogate, config), datamodule=WindowData(part, part, config.data, 0))
    return statistics.median(scalars(out)[0]["speed/waiting_share"].values())


def test_waiting_is_the_time_in_which_data_are_read(small, tmp_path):
    config = small(steps=6, validate_every=100)
    with engine._quiet():
        slow_data = waiting_share(config, tmp_path / "data", SlowWindows, SurrogateModule)
        slow_step = waiting_share(config, tmp_path / "step", WindowDataset, SlowModule)
    assert 0 <= slow_step < slow_data <= 1


def test_the_time_of_training_is_that_of_its_steps(small, tmp_path):
    """What happens at validation does not count, and a run that goes on counts on."""
    pause = 0.5
    config = small(steps=6)
    config.schedule.name = "constant"
    with At(4, lambda: time.sleep(pause)):
        run = train(config, tmp_path / "run")
    first = sorted((run / "tensorboard").glob("events*"))[0]  # another is opened for the last validation
    events = {e.step: e for e in EventAccumulator(str(first)).Reload().Scalars("speed/training_seconds")}
    on_the_clock = events[5].wall_time - events[4].wall_time
    counted = events[5].value - events[4].value
    assert counted > 0
    assert on_the_clock - counted > 0.9 * pause
    config.trainer.steps = 9
    curves, seconds = read_scalars(train(config, run) / "tensorboard")
    steps, values = curves["speed/training_seconds"]
    assert steps[-1] == 9
    assert values == sorted(values)
    assert seconds == pytest.approx(values[-1])
