"""A small surrogate of smoke in a 12² box, really trained, and windows of its training and validation data."""

from dataclasses import dataclass

import pytest
import torch

from cliffsteer import Surrogate, rollout
from cliffsteer.normalization import Normalization
from cliffsteer.solvers import create
from cliffsteer.solvers.base import Solver

MODEL = {"name": "resnet", "hidden_channels": 12, "blocks": [1], "kernel_size": 3, "norm": None}


@dataclass
class Smoke:
    solver: Solver
    surrogate: Surrogate
    train: list[dict[str, torch.Tensor]]
    valid: list[dict[str, torch.Tensor]]


def trajectories(solver, seeds, steps):
    """Frames (batch, time, ...) in float32 and parameters of trajectories, without the frame at rest."""
    state = solver.initial(seeds)
    frames = rollout(solver, solver.observe(state), steps, state.parameters)
    return frames.float(), solver.spec.pack_parameters(state.parameters, len(frames))


def windows(frames, parameters, future=1):
    return [
        {"history": frames[i, t : t + 1], "future": frames[i, t + 1 : t + 1 + future], "parameters": parameters[i]}
        for i in range(len(frames))
        for t in range(frames.shape[1] - future)
    ]


def normalization(spec, frames, parameters):
    def rms(x):
        return float(x.square().sum(2).mean().sqrt())

    fields, change = spec.unpack(frames), spec.unpack(frames.diff(dim=1))
    values = spec.unpack_parameters(parameters)
    return Normalization(
        spec,
        {name: rms(value) for name, value in fields.items()},
        deltas={name: rms(value) for name, value in change.items()},
        parameter_scales={name: float(value.square().sum(1).mean().sqrt()) for name, value in values.items()},
    )


def fit(surrogate, data, steps, lr=3e-3, batch_size=16):
    generator = torch.Generator().manual_seed(0)
    history, future, parameters = (torch.stack([w[k] for w in data]) for k in ("history", "future", "parameters"))
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=lr)
    for _ in range(steps):
        i = torch.randint(len(data), (batch_size,), generator=generator)
        error = surrogate.predict(history[i], parameters[i]) - surrogate.target(history[i], future[i])
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    return surrogate.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def smoke() -> Smoke:
    solver = create("smoke", resolution=12, size=12.0, dt=1.0, scale=5.0, buoyancy_range=(0.1, 0.3))
    data = {
        split: trajectories(solver, seeds, 7) for split, seeds in {"train": range(24), "valid": range(100, 120)}.items()
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        surrogate = Surrogate.create(
            MODEL, solver.spec, solver.grid, solver.dt, 1, 1, normalization(solver.spec, *data["train"])
        )
        fit(surrogate, windows(*data["train"]), 100, lr=6e-3)
    return Smoke(solver, surrogate, windows(*data["train"]), windows(*data["valid"]))
