import math

import pytest
import torch
from torch import nn

from cliffsteer.training.config import OptimizerConfig, ScheduleConfig
from cliffsteer.training.optimizers import create_optimizer, learning_rate_factor


def test_cosine_with_warm_up():
    schedule = ScheduleConfig("cosine", warmup_steps=4, final_factor=0.1)
    factors = [learning_rate_factor(step, 13, schedule) for step in range(13)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[12] == pytest.approx(0.1)
    assert factors[3:] == sorted(factors[3:], reverse=True)
    assert learning_rate_factor(50, 13, schedule) == pytest.approx(0.1)


def test_constant_without_warm_up():
    assert {learning_rate_factor(step, 9, ScheduleConfig("constant", 0)) for step in range(9)} == {1.0}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_warm_up_longer_than_the_training(steps):
    factors = [learning_rate_factor(step, steps, ScheduleConfig("cosine", 100)) for step in range(steps)]
    assert factors[-1] == 1.0


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_an_optimiser_lowers_a_loss_and_decay_spares_biases(name):
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    module.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    optimizer = create_optimizer(module, OptimizerConfig(name, lr=0.05, weight_decay=0.01))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {id(module.weight): 0.01, id(module.bias): 0.0}
    x = torch.randn(64, 3)
    losses = []
    for _ in range(60):
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_the_learning_rate_is_used():
    assert create_optimizer(nn.Linear(1, 1), OptimizerConfig(lr=0.125)).param_groups[0]["lr"] == 0.125


def test_an_unknown_optimiser():
    with pytest.raises(ValueError, match="must be one of adamw, adam, sgd"):
        create_optimizer(nn.Linear(1, 1), OptimizerConfig("lion"))
