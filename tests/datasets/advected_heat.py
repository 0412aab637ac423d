"""A solver from "another package": heat carried by a constant wind on a periodic grid, exact in Fourier space."""

import math
import os
import time

import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.solvers import Solver, State, register


@register("advected_heat")
class AdvectedHeat(Solver):
    """Exact solution of ∂ₜT + w·∇T = κ ∇²T, observed as temperature T and heat flux −κ ∇T.

    Args:
        cells, dim, dt, conductivity: what they say.
        pace: seconds that a step takes.
        limit: a trajectory whose wind along the first axis is stronger becomes NaN in its second step.
    """

    difficulty = "Nothing: the solution is exact."

    def __init__(
        self,
        cells: int = 8,
        dim: int = 2,
        dt: float = 0.1,
        conductivity: float = 0.02,
        pace: float = 0.0,
        limit: float = 1e9,
    ):
        self.grid = Grid((cells,) * dim, 1 / cells)
        fields = [
            Field("temperature", 0, "K"),
            Field("flux", 1, "K m/s"),
            Field("wind", 1, "m/s", "parameter", (0.0,) * dim),
            Field("conductivity", 0, "m^2/s", "parameter", (conductivity,)),
        ]
        self.spec = FieldSpec((1,) * dim, fields)
        self.dt, self.pace, self.conductivity, self.limit = dt, pace, conductivity, limit
        self.axes = tuple(range(-dim, 0))
        waves = [2 * math.pi * torch.fft.fftfreq(cells, 1 / cells, dtype=torch.float64)] * dim
        self.k = torch.stack(torch.meshgrid(*waves, indexing="ij"))

    def initial(self, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(self.grid.shape, generator=g, dtype=torch.float64) for g in generators]
        wind = [torch.randn(self.grid.dim, generator=g, dtype=torch.float64) for g in generators]
        conductivity = torch.full((len(seeds), 1), self.conductivity, dtype=torch.float64)
        parameters = {"wind": torch.stack(wind), "conductivity": conductivity}
        steps = torch.zeros(len(seeds), dtype=torch.int64)
        return State({"temperature": 300 + torch.stack(noise), "steps": steps}, parameters)

    def advance(self, state):
        time.sleep(self.pace)
        extra = (...,) + (None,) * self.grid.dim
        phase = (state.parameters["wind"][extra] * self.k).sum(1)
        damping = state.parameters["conductivity"][:, 0][extra] * self.k.square().sum(0)
        spectrum = torch.fft.fftn(state.values["temperature"], dim=self.axes)
        moved = torch.fft.ifftn(spectrum * torch.exp((-damping - 1j * phase) * self.dt), dim=self.axes).real
        steps = state.values["steps"] + 1
        lost = (state.parameters["wind"][:, 0] > self.limit) & (steps > 1)
        moved = moved.masked_fill(lost[extra], math.nan)
        return State({"temperature": moved, "steps": steps}, state.parameters)

    def observe(self, state):
        temperature = state.values["temperature"]
        spectrum = torch.fft.fftn(temperature, dim=self.axes)
        gradient = torch.fft.ifftn(1j * self.k * spectrum.unsqueeze(1), dim=self.axes).real
        conductivity = state.parameters["conductivity"][(..., *(None,) * self.grid.dim)]
        return self.spec.pack({"temperature": temperature[:, None], "flux": (-conductivity * gradient)[:, None]})

    def restore(self, frames, parameters=None):
        temperature = self.spec.unpack(frames)["temperature"][:, -1, 0].double()
        steps = torch.zeros(len(frames), dtype=torch.int64)
        return State({"temperature": temperature, "steps": steps}, self.read_parameters(parameters, len(frames)))

    def conserved(self, frames, parameters=None):
        return {"heat": self.spec.unpack(frames)["temperature"].flatten(2).mean(2)}


def count_slowly(job, tick):
    """A job of so many small parts."""
    for _ in range(job):
        time.sleep(0.01)
        tick(1)
    return os.getpid(), job


def die(job, tick):
    """A job whose process ends as if the system had killed it."""
    os._exit(1)
