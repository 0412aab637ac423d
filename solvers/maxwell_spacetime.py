"""Maxwell's equations with moving charges on spacetime R^{1,d}, periodic in space: exact in Fourier space, in float64.

    ∇·E = ρ,   ∂ₜE = ∇·B − J,   ∂ₜB = −∇∧E,        (∇·B)_i = Σ_j ∂_j B_ij,   (∇∧E)_ij = ∂_i E_j − ∂_j E_i

with c = ε₀ = 1: lengths in m, times in m/c, E and cB in V/m. In a plane (``maxwell2d``) B has one component, and fields
are those of 2+1 dimensions: a charge at rest has E = q/(2πr), and light leaves a tail behind its front.

Charges are Gaussian clouds of standard deviation ``width``, which oscillate, orbit and drift as prescribed (in the
frame of the box they do not contract). They are as many positive as negative, as a periodic box needs. Of the wave k

    ρ_k = S_k Σ q exp(−ik·r(t)),   J_k = S_k Σ q ṙ exp(−ik·r(t)),   S_k = exp(−k²σ²/2) / volume

so charge is conserved exactly. E = −ikρ/k² − Ȧ has its divergence from Gauss's law; the transverse potential obeys
Ä + k²A = PJ with P the transverse projection, and so

    A(t+h) = cos kh A + sin kh / k Ȧ + ∫₀ʰ sin k(h−s) / k PJ(t+s) ds,   B = ik∧A

(and its time derivative), the integral by Gauss and Legendre's rule with enough points for rounding to be the only
error. This is the pseudo-spectral analytical time-domain method, with the current's own course in place of a constant
one. Nyquist's waves are left out; where a cloud is much narrower than a cell, it is cut off at the grid's waves, which
the equations hold for as well.

Before t = 0 all charges have been flying straight, each with the velocity it has at t = 0, and the first field is
theirs. What they radiate from then on stays in the box.

Good values, the defaults: 32 cells along a box of 1 m, as many points in time, 4 pairs of clouds 0.04 m wide, a cell
and a quarter, at up to half the speed of light.

Source: Vay, Haber and Godfrey, "A domain decomposition method for pseudo-spectral electromagnetic simulations of
plasmas" (2013), section 2, for the method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cliffsteer.solvers.base import State
from cliffsteer.solvers.charge_waves import ChargeWaves, charge_waves
from cliffsteer.solvers.charges import HarmonicMotion, Vector
from cliffsteer.solvers.options import number, whole
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.spacetime import SpacetimeSolver

COURANT = 64.0
"""Longest time between points, over the size of a cell: points of the quadrature and their memory grow with it."""
CHARGES = 3
"""Charges are of 1 to this many units."""


@register("maxwell_spacetime")
class MaxwellSpacetime(SpacetimeSolver):
    """Maxwell's equations with moving charges on the spacetime R^{1,3}, blocks (t, x, y, z); exact in time and space.

    States hold ``time`` (batch,), the start of the block in m/c; ``field``, the bivector on the block, shape
    (batch, component, t, *x); ``potential`` and ``rate``, the Fourier coefficients of A and Ȧ at the end of the block,
    shape (batch, axis, *k, 2), real and imaginary parts, k the half spectrum of ``torch.fft.rfftn``; and the charges:
    ``charge``, and what ``HarmonicMotion`` needs.

    Args:
        resolution: number of cells along each side of the box.
        size: length of each side, in m.
        block: points in time of a block; default: ``resolution``.
        courant: c Δt over the size of a cell, up to 64. It bounds nothing but the cost of a step, which grows with it.
        pairs: number of pairs of a positive and a negative charge.
        width: standard deviation of the clouds, in m.
        radius: largest radius of orbits and amplitude of oscillations, in m; the lowest is half of it.
        speed: highest speed of orbits and oscillations, in c; the lowest is half of it.
        drift: speed that all charges drift with, in a direction of its own for each trajectory, in c.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> solver = MaxwellSpacetime(resolution=8)
        >>> solver.observe(solver.initial([0])).shape
        torch.Size([1, 1, 16, 8, 8, 8, 8])
    """

    name: ClassVar[str] = "maxwell_spacetime"
    dimension: ClassVar[int] = 3

    def __init__(
        self,
        resolution: int = 32,
        size: float = 1.0,
        block: int | None = None,
        courant: float = 1.0,
        pairs: int = 4,
        width: float = 0.04,
        radius: float = 0.06,
        speed: float = 0.5,
        drift: float = 0.1,
    ):
        cells = whole("resolution", resolution, 4, " of cells a side")
        points = cells if block is None else whole("block", block, 1, " of points in time")
        self.size = number("size", size, "m", above=0)
        self.pairs = whole("pairs", pairs, 1)
        self.width = number("width", width, "m", above=0)
        self.radius = number("radius", radius, "m", above=0)
        self.speed = number("speed", speed, "c", above=0)
        self.drift = number("drift", drift, "c", low=0)
        if self.speed + self.drift >= 1:
            raise ValueError(
                f"`speed` (={speed}) and `drift` (={drift}) must be below 1, the speed of light, taken together."
            )
        courant = number("courant", courant, above=0)
        if courant > COURANT:
            raise ValueError(
                f"`courant` (={courant:g}) must not exceed {COURANT:g}, as a step costs in proportion to it: take a"
                " smaller one and a longer `block`, or leave out blocks between frames (`every` of a recipe)."
            )
        super().__init__(points, (cells,) * self.dimension, self.size / cells, courant, "periodic", "m", "V/m")

    def initial(self, seeds: Sequence[int]) -> State:
        """Charges drawn at random, and the block from t = 0 on."""
        drawn = [self._draw(torch.Generator().manual_seed(int(seed))) for seed in seeds or [0]]
        values = {name: torch.stack([d[name] for d in drawn])[: len(seeds)] for name in drawn[0]}
        return self.start(State({"time": torch.zeros(len(seeds), dtype=torch.float64), **values}, {}))

    def start(self, state: State) -> State:
        """The whole state from ``time`` and the charges alone: these have been flying straight until then.

        The wave of a charge of constant velocity v is A_k = PJ_k / (k² − (k·v)²), and moves with it.
        """
        time, clouds = state.values["time"], self._clouds(state)
        waves = clouds.waves
        position, velocity = clouds.motion_at(time.unsqueeze(-1))
        moving = torch.cat(velocity, -1)  # (batch, charge, axis)
        along = torch.einsum("bca,a...->bc...", moving, waves.k)
        inertia = waves.squared - along.square()
        weight = torch.where(inertia > 0, waves.form / inertia.clamp(min=1e-300), 0.0)
        single = waves.superpose(clouds.charge[..., None, None], position)[:, :, 0] * weight
        moving = moving.to(single.dtype)
        potential = waves.transverse(torch.einsum("bca,bc...->ba...", moving, single))
        rate = waves.transverse(torch.einsum("bca,bc...->ba...", moving, single * (-1j * along)))
        return self._block(state, time, potential, rate)

    def advance(self, state: State) -> State:
        """The state one block later."""
        potential, rate = (torch.view_as_complex(state.values[name]) for name in ("potential", "rate"))
        return self._block(state, state.values["time"] + self.dt, potential, rate)

    def observe(self, state: State) -> Tensor:
        """The block that begins at the state's time, frames (batch, 1, blade, t, *x), float64."""
        return self.spec.pack({"faraday": state.values["field"][:, None]})

    def sources(self, state: State, time: Tensor) -> Tensor:
        """ρ and J in V/m² at the cell centres, shape (batch, 1 + axis, *x), at times (batch,)."""
        clouds = self._clouds(state)
        both = torch.cat([clouds.density(time)[:, None], clouds.current(time) * clouds.waves.form], 1)
        return clouds.waves.inverse(both)

    def _block(self, state: State, start: Tensor, potential: Tensor, rate: Tensor) -> State:
        """The state whose block begins at ``start``, with A and Ȧ at that time."""
        clouds, device = self._clouds(state), str(start.device)
        offsets = (0.0, *self.offsets.tolist(), self.dt)
        fields = []
        for offset, until in itertools.pairwise(offsets):
            half = offset == 0 or until == self.dt  # points in time are the centres of the block's cells
            length = self.grid.spacing[0] / (2 if half else 1)
            turn = _turn(self.grid.shape[1:], self.grid.spacing[1:], self.width, length, device)
            potential, rate = turn.apply(clouds, start + offset, potential, rate)
            if until < self.dt:
                fields.append(clouds.field(start + until, potential, rate))
        values = {"time": start, "field": torch.stack(fields, 2)}
        values |= {"potential": torch.view_as_real(potential), "rate": torch.view_as_real(rate)}
        return State({**state.values, **values}, state.parameters)

    def _clouds(self, state: State) -> _Clouds:
        charge = state.values["charge"]
        waves = charge_waves(self.grid.shape[1:], self.grid.spacing[1:], self.width, str(charge.device))
        return _Clouds(waves, charge, HarmonicMotion.of_values(state.values))

    def _draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        n, axes = 2 * self.pairs, self.dimension

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(*shape, dtype=torch.float64, generator=generator)

        def directions(*shape: int) -> Tensor:
            vectors = torch.randn(axes, *shape, dtype=torch.float64, generator=generator)
            return vectors / vectors.norm(dim=0)

        size = torch.randint(1, CHARGES + 1, (self.pairs,), generator=generator).to(torch.float64)
        origin = uniform(0, self.size, axes, n)
        along, other = directions(n), directions(n)
        across = other - along * (along * other).sum(0)
        across = across / across.norm(dim=0) * torch.randint(2, (n,), generator=generator)  # half of them oscillate
        radius = uniform(self.radius / 2, self.radius, n)
        omega = uniform(self.speed / 2, self.speed, n) / radius
        phase = uniform(0, 2 * math.pi, n)
        cosine, sine = along * phase.cos() + across * phase.sin(), across * phase.cos() - along * phase.sin()
        return {
            "charge": torch.cat([size, -size]),
            "origin": origin,
            "drift": self.drift * directions(1).expand(axes, n),
            "cosine": cosine * radius,
            "sine": sine * radius,
            "omega": omega,
        }


@register("maxwell2d")
class Maxwell2d(MaxwellSpacetime):
    """Maxwell's equations with moving charges on the spacetime R^{1,2}, blocks (t, x, y); exact in time and space.

    It has the states and options of ``MaxwellSpacetime``, in a plane.

    Example:
        >>> solver = Maxwell2d(resolution=8)
        >>> solver.observe(solver.initial([0])).shape
        torch.Size([1, 1, 8, 8, 8, 8])
    """

    name: ClassVar[str] = "maxwell2d"
    dimension: ClassVar[int] = 2


@dataclass(frozen=True)
class _Clouds:
    """The charges of a state, and the waves they make; times have shape (batch,)."""

    waves: ChargeWaves
    charge: Tensor
    motion: HarmonicMotion

    def motion_at(self, times: Tensor) -> tuple[Vector, Vector]:
        """Positions and velocities, components (batch, charge, time), at times (batch, time)."""
        return self.motion(times.unsqueeze(1))[:2]

    def density(self, time: Tensor) -> Tensor:
        """ρ_k, shape (batch, *k)."""
        position, _ = self.motion_at(time.unsqueeze(-1))
        return self.waves.superpose(self.charge[:, None], tuple(x[..., 0] for x in position))[:, 0] * self.waves.form

    def current(self, time: Tensor) -> Tensor:
        """J_k / S_k, shape (batch, axis, *k)."""
        position, velocity = self.motion_at(time.unsqueeze(-1))
        weights = self.charge[:, None] * torch.stack([v[..., 0] for v in velocity], 1)
        return self.waves.superpose(weights, tuple(x[..., 0] for x in position))

    def field(self, time: Tensor, potential: Tensor, rate: Tensor) -> Tensor:
        """E_i and cB_ij at the cell centres, shape (batch, component, *x)."""
        electric = -self.waves.gradient(self.waves.potential(self.density(time))) - rate
        return self.waves.inverse(torch.cat([electric, self.waves.curl(potential)], 1))


@dataclass(frozen=True)
class _Turn:
    """A step of one length.

    Args:
        squared: k², shape (*k).
        cos, sin: cos kh and sin(kh)/k.
        nodes: times of the quadrature's points from the start of the step.
        to_potential, to_rate: S_k w sin k(h−s) / k and S_k w cos k(h−s), shape (node, *k), complex.
    """

    squared: Tensor
    cos: Tensor
    sin: Tensor
    nodes: tuple[float, ...]
    to_potential: Tensor
    to_rate: Tensor

    def apply(self, clouds: _Clouds, time: Tensor, potential: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """A and Ȧ after the step, both transverse."""
        push, kick = torch.zeros_like(potential), torch.zeros_like(rate)
        for node, to_potential, to_rate in zip(self.nodes, self.to_potential, self.to_rate, strict=True):
            current = clouds.current(time + node)
            push.addcmul_(to_potential, current)
            kick.addcmul_(to_rate, current)
        push, kick = clouds.waves.transverse(push), clouds.waves.transverse(kick)
        ahead = self.cos * potential + self.sin * rate + push
        return ahead, self.cos * rate - self.squared * self.sin * potential + kick


@lru_cache(maxsize=8)
def _turn(cells: tuple[int, ...], spacing: tuple[float, ...], width: float, length: float, device: str) -> _Turn:
    waves = charge_waves(cells, spacing, width, device)
    k = waves.squared.sqrt()
    # the integrand turns with at most k + k·v < 2k
    points, weights = np.polynomial.legendre.leggauss(_nodes(2 * float(k.max()) * length))
    nodes, weights = (torch.from_numpy(x).to(device) * length / 2 for x in (points + 1, weights))
    left = (length - nodes).view(-1, *[1] * len(cells))
    weighted = weights.view_as(left) * waves.form
    # complex, since products of a complex and a real tensor copy the real one
    kernels = (weighted * kernel for kernel in (_sin_over_k(k, left), torch.cos(k * left)))
    return _Turn(
        waves.squared,
        torch.cos(k * length),
        _sin_over_k(k, torch.tensor(length, dtype=torch.float64, device=device)),
        tuple(nodes.tolist()),
        *(kernel.to(torch.complex128) for kernel in kernels),
    )


def _sin_over_k(k: Tensor, time: Tensor) -> Tensor:
    """sin(kt)/k; torch's sinc(x) is sin(πx)/(πx)."""
    return torch.sinc(k * time / math.pi) * time


def _nodes(angle: float) -> int:
    """Points that integrate exp(i·angle·s) over [0, 1] to rounding, by the remainder of Gauss's rule."""
    n, remainder = 1, 0.0
    while remainder > math.log(1e-17) or n == 1:
        n += 1
        factorials = 4 * math.lgamma(n + 1) - 3 * math.lgamma(2 * n + 1)
        remainder = factorials - math.log(2 * n + 1) + 2 * n * math.log(angle)
    return n
