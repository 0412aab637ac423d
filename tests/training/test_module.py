import pytest
import torch

from cliffsteer import Surrogate
from cliffsteer.datasets import TrajectoryDataset, WindowDataset, compute_statistics
from cliffsteer.training.module import SurrogateModule


@pytest.fixture
def batch(root):
    windows = WindowDataset(TrajectoryDataset(root, "train"), 2, 1)
    return torch.utils.data.default_collate([windows[i] for i in (1, 5, 9)])


def make(config):
    data = TrajectoryDataset(config.data.root, "train")
    model = {"name": config.model.name, **config.model.options}
    statistics = compute_statistics(data)
    surrogate = Surrogate.create(model, data.spec, data.grid, data.dt, 2, 1, statistics, config.prediction)
    return SurrogateModule(surrogate, config)


@pytest.mark.parametrize("prediction", ["delta", "state"])
def test_the_loss_counts_every_field_alike_in_normalised_units(small, batch, prediction):
    module = make(small(prediction=prediction))
    surrogate = module.surrogate
    loss = module.training_step(batch, 0)
    prediction = surrogate(batch["history"], batch["parameters"])
    expected = 0.0
    for name, part in (("density", slice(0, 1)), ("velocity", slice(1, 3))):
        error = prediction[:, :, part] - batch["future"][:, :, part]
        expected += float(error.detach().square().mean()) / surrogate.loss_scales[name] ** 2 / 2
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_that_of_the_validation(small, batch):
    module = make(small(ema_decay=0.0))
    module.validation_step(batch, 0)
    valid = module.errors.compute()["overall"]["normalized_mse"][0]
    assert module.training_step(batch, 0).item() == pytest.approx(valid, rel=1e-4)


@pytest.mark.parametrize("prediction", ["delta", "state"])
def test_noise_is_on_what_training_reads_and_not_on_validation(small, batch, prediction):
    config = small(prediction=prediction, ema_decay=0.0)
    config.data.noise = 0.1
    noisy, module = make(config), make(small(prediction=prediction, ema_decay=0.0))
    noisy.surrogate.load_state_dict(module.surrogate.state_dict())
    scales = module.surrogate.loss_scales
    assert noisy.noise.amplitude[:2].tolist() == pytest.approx([0.1 * scales["density"], 0.1 * scales["velocity"]])
    assert noisy.training_step(batch, 0).item() != pytest.approx(module.training_step(batch, 0).item(), rel=1e-3)
    for each in (noisy, module):
        each.validation_step(batch, 0)
    valid = [each.errors.compute()["overall"]["normalized_mse"][0] for each in (noisy, module)]
    assert valid[0] == valid[1]


def test_the_loss_reaches_every_weight(small, batch):
    module = make(small())
    module.training_step(batch, 0).backward()
    assert all(p.grad is not None and p.grad.ne(0).any() for p in module.surrogate.parameters())
    assert all(p.grad is None for p in module.average.parameters())


def test_without_average_the_surrogate_itself_is_validated(small):
    module = make(small(ema_decay=0.0))
    assert module.average is module.surrogate
    module = make(small(ema_decay=0.5))
    assert module.average is not module.surrogate
