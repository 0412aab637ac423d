"""A small system with parameters of several grades, its frames, and surrogates of it."""

import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.normalization import Normalization

SPEC = FieldSpec(
    (1, 1),
    [
        Field("density", 0),
        Field("velocity", 1, "m/s"),
        Field("force", 1, "m/s^2", "parameter", (0.0, 0.5)),
        Field("viscosity", 0, "m^2/s", "parameter", (0.01,)),
    ],
)
GRID = Grid((8, 8), 0.5, "periodic")
SCALES = Normalization(
    SPEC,
    {"density": 2.0, "velocity": 0.5},
    {"density": 0.3},
    {"density": 0.2, "velocity": 0.05},
    {"force": 0.5, "viscosity": 0.01},
)
MODELS = {
    "csresnet": {"name": "csresnet", "hidden_channels": 3, "blocks": [1], "kernel_size": 3, "padding": "periodic"},
    "resnet": {"name": "resnet", "hidden_channels": 6, "blocks": [1], "kernel_size": 3, "padding": "periodic"},
}


def make(name="resnet", history=2, future=1, prediction="delta", normalization=SCALES):
    return Surrogate.create(MODELS[name], SPEC, GRID, 1.5, history, future, normalization, prediction).eval()


def frames(time=2, batch=3, dtype=torch.float32):
    x = torch.randn(batch, time, SPEC.n_blades, *GRID.shape, dtype=dtype)
    return x.masked_fill(~SPEC.occupied.view(-1, 1, 1), 0)
