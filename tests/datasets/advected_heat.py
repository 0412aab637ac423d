"""A solver from "another package": heat carried by a constant wind on a periodic grid, exact in Fourier space."""

import math
import os
import time

import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.solvers import Solver, State, register


@register("advected_heat")
class AdvectedHeat(Solver):
    """Exact solution of ∂ₜT + w·∇T = κ ∇²T, observed as temperature T and heat flux −κ ∇T."""

    def __init__(self, cells: int = 8, dim: int = 2, dt: float = 0.1, conductivity: float = 0.02, pace: float = 0.0):
        self.grid = Grid((cells,) * dim, 1 / cells)
        fields = [
            Field("temperature", 0, "K"),
            Field("flux", 1, "K m/s"),
            Field("wind", 1, "m/s", "parameter", (0.0,) * dim),
            Field("conductivity", 0, "m^2/s", "parameter", (conductivity,)),
        ]
        self.spec = FieldSpec((1,) * dim, fields)
        self.dt, self.pace, self.conductivity = dt, pace, conductivity
        self.axes = tuple(range(-dim, 0))
        waves = [2 * math.pi * torch.fft.fftfreq(cells, 1 / cells, dtype=torch.float64)] * dim
        self.k = torch.stack(torch.meshgrid(*waves, indexing="ij"))

    def initial(self, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(self.grid.shape, generator=g, dtype=torch.float64) for g in generators]
        wind = [torch.randn(self.grid.dim, generator=g, dtype=torch.float64) for g in generators]
        conductivity = torch.full((len(seeds), 1), self.conductivity, dtype=torch.float64)
        parameters = {"wind": torch.stack(wind), "conductivity": conductivity}
        return State({"temperature": 300 + torch.stack(noise)}, parameters)

    def advance(self, state):
        time.sleep(self.pace)
        extra = (...,) + (None,) * self.grid.dim
        phase = (state.parameters["wind"][extra] * self.k).sum(1)
        damping = state.parameters["conductivity"][:, 0][extra] * self.k.square().sum(0)
        spectrum = torch.fft.fftn(state.values["temperature"], dim=self.axes)
        moved = torch.fft.ifftn(spectrum * torch.exp((-damping - 1j * phase) * self.dt), dim=self.axes).real
        return State({"temperature": moved}, state.parameters)

    def observe(self, state):
        temperature = state.values["temperature"]
        spectrum = torch.fft.fftn(temperature, dim=self.axes)
        gradient = torch.fft.ifftn(1j * self.k * spectrum.unsqueeze(1), dim=self.axes).real
        conductivity = state.parameters["conductivity"][(..., *(None,) * self.grid.dim)]
        return self.spec.pack({"temperature": temperature[:, None], "flux": (-conductivity * gradient)[:, None]})

    def restore(self, frames, parameters=None):
        temperature = self.spec.unpack(frames)["temperature"][:, -1, 0].double()
        return State({"temperature": temperature}, self.read_parameters(parameters, len(frames)))


def die(task, tick):
    """A task whose process ends as if the system had killed it."""
    os._exit(1)
