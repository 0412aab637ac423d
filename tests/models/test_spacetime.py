"""Block of spacetime in, block out: a dataset whose frames have a time axis trains every kind of network."""

import pytest
import torch

from cliffsteer import Surrogate, rollout
from cliffsteer.datasets import Recipe, TrajectoryDataset, WindowDataset, generate
from cliffsteer.testing import assert_equivariant
from cliffsteer.training import DataConfig, ModelConfig, ScheduleConfig, TrainConfig, TrainerConfig, train

SOLVERS = {
    "maxwell2d": {"resolution": 8, "block": 6},
    "maxwell_charges": {"resolution": 8, "block": 6, "oversampling": 2},
    "maxwell_spacetime": {"resolution": 6, "block": 4},
}
SMALL = {"hidden_channels": 2, "blocks": [1], "kernel_size": 3}


@pytest.fixture(scope="module", params=SOLVERS)
def root(request, tmp_path_factory):
    recipe = Recipe(request.param, SOLVERS[request.param], {"train": 1, "valid": 1}, frames=4, batch=1)
    return generate(recipe, tmp_path_factory.mktemp("data") / request.param, progress=False)


def test_block_in_block_out(root, tmp_path):
    data = TrajectoryDataset(root, "valid")
    assert data.spec.algebra.signature == (1,) + (-1,) * (data.grid.dim - 1)
    model = {**SMALL, "padding": ["zeros"] + ["periodic"] * (data.grid.dim - 1), "nonlinearity": "product"}
    config = TrainConfig(
        DataConfig(str(root), history=1, batch_size=1),
        ModelConfig("csresnet", model),
        schedule=ScheduleConfig(warmup_steps=1),
        trainer=TrainerConfig(steps=2, validate_every=2, rollout_steps=0, images=False, progress=False),
    )
    surrogate = Surrogate.from_pretrained(train(config, tmp_path / "run") / "surrogate")
    frames = WindowDataset(data, 1, 1)[0]["history"].unsqueeze(0)
    blocks = rollout(surrogate, frames, 2)
    assert blocks.shape == (1, 2, *frames.shape[2:])
    assert blocks.isfinite().all()
    double = surrogate.double()
    x = torch.randn_like(frames, dtype=torch.float64) * frames.std()
    assert_equivariant(double.step, x, data.spec.algebra, grid=data.grid, tolerance=1e-9)
