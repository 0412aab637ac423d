import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from cliffsteer import CliffordAlgebra
from cliffsteer.solvers.charges import HarmonicMotion
from cliffsteer.solvers.lienard_wiechert import bivector, retarded, straight_delay

FLOAT = {"dtype": torch.float64}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, g):
    return torch.randn(*shape, generator=g, **FLOAT)


def random_motion(axes, count, speed, g):
    """Charges whose drift and swing together reach up to ``speed``."""
    share = 0.9 * torch.rand(count, generator=g, **FLOAT)
    drift = randn(axes, count, g=g)
    cosine, sine = randn(axes, count, g=g), randn(axes, count, g=g)
    omega = (1 - share) * speed / (cosine.square() + sine.square()).sum(0).sqrt()
    return HarmonicMotion(3 * randn(axes, count, g=g), drift / drift.norm(dim=0) * share * speed, cosine, sine, omega)


def straight(origin, velocity):
    zero = torch.zeros_like(origin)
    return HarmonicMotion(origin, velocity, zero, zero, torch.zeros(origin.shape[1], **FLOAT))


def field(motion, charge, time, position):
    return bivector(charge, retarded(motion, time, position))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def lorentz(axes, g):
    """A random Lorentz transformation without time reversal: a boost between two rotations or reflections."""
    rapidity = 1.2 * torch.rand((), generator=g, **FLOAT)
    boost = torch.eye(1 + axes, **FLOAT)
    boost[0, 0] = boost[1, 1] = rapidity.cosh()
    boost[0, 1] = boost[1, 0] = rapidity.sinh()
    turns = [torch.block_diag(torch.ones(1, 1, **FLOAT), torch.linalg.qr(randn(axes, axes, g=g)).Q) for _ in range(2)]
    return turns[0] @ boost @ turns[1]


@dataclass(frozen=True)
class Transformed:
    """Worldlines after a Lorentz transformation Λ of another motion."""

    matrix: torch.Tensor
    motion: HarmonicMotion

    def __call__(self, time):
        first = self.matrix[0]
        own = time.clone()
        for _ in range(60):  # own time t of the event that has the time Λ⁰(t, r(t)) afterwards
            place, velocity, acceleration = self.motion(own)
            rate = first[0] + sum(m * v for m, v in zip(first[1:], velocity, strict=True))
            own = own - (first[0] * own + sum(m * r for m, r in zip(first[1:], place, strict=True)) - time) / rate

        def image(zeroth, vector):
            columns = [zeroth, *vector]
            return [sum(m * x for m, x in zip(row, columns, strict=True)) for row in self.matrix]

        event = image(own, place)
        u = image(torch.ones_like(own), velocity)
        du = image(torch.zeros_like(own), acceleration)
        moved = [x / u[0] for x in u[1:]]
        turned = [(d * u[0] - x * du[0]) / u[0] ** 3 for x, d in zip(u[1:], du[1:], strict=True)]
        return tuple(event[1:]), tuple(moved), tuple(turned)


# ----------------------------------------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_charge_at_rest_has_a_coulomb_field(axes):
    g = generator()
    origin, x = randn(axes, 1, g=g), randn(axes, 200, g=g)
    found = field(straight(origin, 0 * origin), torch.tensor([-2.0], **FLOAT), torch.zeros(200, **FLOAT), x)
    separation = x - origin
    expected = -2 * separation / separation.norm(dim=0) ** 3
    assert relative(found[:axes], expected) < 1e-14
    assert found.shape == (axes * (axes + 1) // 2, 200)
    assert found[axes:].norm() < 1e-15 * found.norm()


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("speed", [0.3, 0.99])
def test_a_uniformly_moving_charge_has_heavisides_field(axes, speed):
    # E = q R (1 − β²) / (R² − |β ∧ R|²)^{3/2} with R from where the charge is now, cB = β ∧ E.
    g = generator(1)
    velocity = randn(axes, 1, g=g)
    velocity = velocity / velocity.norm() * speed
    origin, x, t = randn(axes, 1, g=g), 3 * randn(axes, 200, g=g), randn(200, g=g)
    found = field(straight(origin, velocity), torch.tensor([1.5], **FLOAT), t, x)
    now = x - origin - velocity * t
    across = (now * now).sum(0) * speed**2 - (now * velocity).sum(0) ** 2
    electric = 1.5 * now * (1 - speed**2) / ((now * now).sum(0) - across) ** 1.5
    pairs = itertools.combinations(range(axes), 2)
    magnetic = torch.stack([velocity[i] * electric[j] - velocity[j] * electric[i] for i, j in pairs])
    assert relative(found, torch.cat([electric, magnetic])) < 1e-11


@pytest.mark.parametrize("axes", [2, 3])
def test_the_field_of_a_moving_charge_is_the_boosted_coulomb_field(axes):
    algebra, g = CliffordAlgebra((1, *[-1] * axes)), generator(2)
    blades = algebra.grade_slice(2)
    origin, charge = randn(axes, 1, g=g), torch.ones(1, **FLOAT)
    for _ in range(5):
        matrix = lorentz(axes, g)
        assert algebra.is_orthogonal(matrix)
        event = randn(1 + axes, 100, g=g)
        there = matrix @ event
        rest = field(straight(origin, 0 * origin), charge, event[0], event[1:])
        # the worldline (t, o) becomes (Λ⁰₀ t + Λ⁰ᵢ oᵢ, Λⱼ₀ t + Λⱼᵢ oᵢ)
        velocity = matrix[1:, :1] / matrix[0, 0]
        start = matrix[1:, 1:] @ origin - velocity * (matrix[0, 1:] @ origin)
        moving = field(straight(start, velocity), charge, there[0], there[1:])
        assert relative(moving, algebra.outermorphism(matrix)[blades, blades] @ rest) < 1e-10


@pytest.mark.parametrize("axes", [2, 3])
def test_fields_transform_by_the_outermorphism(axes):
    # F(Λx) = ρ(Λ) F(x) for accelerated charges as well, and for reflections of space.
    algebra, g = CliffordAlgebra((1, *[-1] * axes)), generator(3)
    blades = algebra.grade_slice(2)
    motion, charge = random_motion(axes, 4, 0.6, g), randn(4, g=g)
    for _ in range(5):
        matrix = lorentz(axes, g)
        event = 3 * randn(1 + axes, 100, g=g)
        there = matrix @ event
        here = field(motion, charge, event[0], event[1:])
        turned = algebra.outermorphism(matrix)[blades, blades] @ here
        assert relative(field(Transformed(matrix, motion), charge, there[0], there[1:]), turned) < 1e-10
        assert relative(here, turned) > 1e-2


def test_agrees_with_the_textbook_formula_and_bisection():
    # Griffiths 10.72 and 10.73, with cross products, at retarded times by Brent's method; slow and independent.
    g = generator(4)
    motion, charge = random_motion(3, 3, 0.8, g), randn(3, g=g)
    x, t = 4 * randn(3, 20, g=g), 5 * randn(20, g=g)
    found = field(motion, charge, t, x)
    parts = [v.numpy() for v in (motion.origin, motion.drift, motion.cosine, motion.sine)]
    for event in range(20):
        electric, magnetic = np.zeros(3), np.zeros(3)
        for c in range(3):
            o, v, a, b = (part[:, c] for part in parts)
            w, point, time = float(motion.omega[c]), x[:, event].numpy(), float(t[event])

            def place(s, o=o, v=v, a=a, b=b, w=w):
                return o + v * s + a * math.cos(w * s) + b * math.sin(w * s)

            def miss(s, place=place, point=point, time=time):
                return np.linalg.norm(point - place(s)) - (time - s)

            s = brentq(miss, time - 1e3, time, xtol=1e-13, rtol=1e-15)
            r = point - place(s)
            speed = v - a * w * math.sin(w * s) + b * w * math.cos(w * s)
            turn = -(w**2) * (a * math.cos(w * s) + b * math.sin(w * s))
            u = r / np.linalg.norm(r) - speed
            strength = float(charge[c]) * np.linalg.norm(r) / (r @ u) ** 3
            e = strength * ((1 - speed @ speed) * u + np.cross(r, np.cross(u, turn)))
            electric += e
            magnetic += np.cross(r / np.linalg.norm(r), e)
        expected = torch.tensor([*electric, magnetic[2], -magnetic[1], magnetic[0]])
        assert relative(found[:, event], expected) < 1e-10


# ------------------------------------------------------------------------------------------------ retarded times


@pytest.mark.parametrize("speed", [0.3, 0.8, 0.99, 0.9999])
def test_retarded_times_of_charges_up_to_the_speed_of_light(speed):
    g = generator(5)
    motion = random_motion(2, 12, speed, g)
    x, t = 10 * randn(2, 500, g=g), 30 * randn(500, g=g)
    for guess in (None, straight_delay(motion, t, x), torch.zeros(12, 500, **FLOAT)):
        delay = retarded(motion, t, x, guess).delay
        place = torch.stack(motion(t - delay)[0])
        miss = (x[:, None] - place).norm(dim=0) - delay
        assert float(delay.min()) >= 0
        assert float(miss.abs().max()) < 1e-12 * 100  # delays reach 100 and more
    low, high = torch.zeros_like(delay), torch.full_like(delay, 1e7)
    for _ in range(100):
        middle = (low + high) / 2
        early = (x[:, None] - torch.stack(motion(t - middle)[0])).norm(dim=0) > middle
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    assert float((low - delay).abs().max()) < 1e-11 / (1 - speed)


def test_straight_worldlines_need_one_step():
    g = generator(6)
    motion = random_motion(3, 5, 0.9, g)
    motion = straight(motion.origin, motion.drift)
    x, t = randn(3, 50, g=g), randn(50, g=g)
    assert relative(straight_delay(motion, t, x), retarded(motion, t, x).delay) < 1e-13
    calls = []

    def counted(time):
        calls.append(1)
        return motion(time)

    retarded(counted, t, x)
    assert len(calls) == 3  # where it is now, one step, and the check


def test_worldlines_without_a_retarded_time_are_refused():
    origin = torch.zeros(2, 1, **FLOAT)
    fast = straight(origin, torch.tensor([[1.0], [0.0]], **FLOAT))
    ahead = torch.tensor([[7.0], [0.0]], **FLOAT)  # where the charge will be: its light comes with it, not before
    with pytest.raises(ValueError, match="worldlines must be finite and slower than light"):
        retarded(fast, torch.full((1,), 6.0, **FLOAT), ahead)
    with pytest.raises(ValueError, match="worldlines must be finite and slower than light"):
        retarded(straight(origin * math.nan, origin), torch.zeros(1, **FLOAT), ahead)


# ------------------------------------------------------------------------------------------- Maxwell's equations


def residuals(axes, spacing, g):
    """(Gauss, Ampère, Faraday, no monopoles) by central differences at random events, over the size of ∂F."""
    motion, charge = random_motion(axes, 3, 0.5, g), torch.ones(3, **FLOAT)
    event = torch.cat([3 * randn(1, 60, g=g), 5 * randn(axes, 60, g=g)])
    near = retarded(motion, event[0], event[1:]).distance.amin(0)
    event = event[:, near > 1.5]
    slopes = []
    for axis in range(1 + axes):
        step = torch.zeros(1 + axes, 1, **FLOAT)
        step[axis] = spacing
        ahead, behind = (field(motion, charge, e[0], e[1:]) for e in (event + step, event - step))
        slopes.append((ahead - behind) / (2 * spacing))
    e = [[slope[i] for i in range(axes)] for slope in slopes]
    b = [[[None] * axes for _ in range(axes)] for _ in slopes]
    for mu, slope in enumerate(slopes):
        for i in range(axes):
            b[mu][i][i] = torch.zeros_like(slope[0])
        for n, (i, j) in enumerate(itertools.combinations(range(axes), 2)):
            b[mu][i][j], b[mu][j][i] = slope[axes + n], -slope[axes + n]
    space = range(axes)
    pairs = list(itertools.combinations(space, 2))
    laws = {
        "gauss": [sum(e[1 + i][i] for i in space)],
        "ampere": [e[0][i] - sum(b[1 + j][i][j] for j in space) for i in space],
        "faraday": [b[0][i][j] + e[1 + i][j] - e[1 + j][i] for i, j in pairs],
        "monopoles": [b[1 + i][j][k] + b[1 + j][k][i] + b[1 + k][i][j] for i, j, k in itertools.combinations(space, 3)],
    }
    size = torch.stack(slopes).norm()
    return {name: float(torch.stack(law).norm() / size) for name, law in laws.items() if law}


def test_maxwells_equations_in_3_plus_1_dimensions():
    found = [residuals(3, h, generator(7)) for h in (0.04, 0.02, 0.01)]
    for name in ("gauss", "ampere", "faraday", "monopoles"):
        orders = [math.log2(a[name] / b[name]) for a, b in itertools.pairwise(found)]
        assert all(1.9 < order < 2.1 for order in orders), (name, found)


def test_a_slice_solves_faradays_law_alone():
    # The field of 3+1 dimensions leaves the plane: its divergence and curl within the plane are not those of a plane's.
    found = [residuals(2, h, generator(8)) for h in (0.02, 0.01)]
    assert 1.9 < math.log2(found[0]["faraday"] / found[1]["faraday"]) < 2.1
    assert found[1]["faraday"] < 1e-3
    assert found[1]["gauss"] > 0.1
    assert found[1]["ampere"] > 0.05


def test_the_power_radiated_is_larmors():
    # ⟨P⟩ = 2/3 q² ⟨γ⁶ a²⟩ for K = 1, c = 1: Liénard's generalisation of Larmor's formula, motion along a line.
    amplitude, omega, charge = 0.6, 1.0, 1.3
    axis = torch.tensor([[0.0], [0.6], [0.8]], **FLOAT)
    motion = HarmonicMotion(0 * axis, 0 * axis, amplitude * axis, 0 * axis, torch.tensor([omega], **FLOAT))
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(40))
    turns = torch.arange(80, **FLOAT) * 2 * math.pi / 80
    times = torch.arange(64, **FLOAT) * 2 * math.pi / 64
    cos, angle, time = (x.flatten() for x in torch.meshgrid(nodes, turns, times, indexing="ij"))
    sin = (1 - cos**2).sqrt()
    direction = torch.stack([sin * angle.cos(), sin * angle.sin(), cos])
    radius = 1e5
    found = field(motion, torch.tensor([charge], **FLOAT), time, radius * direction)
    electric, (bz, minus_by, bx) = found[:3], found[3:]
    flow = torch.linalg.cross(electric, torch.stack([bx, -minus_by, bz]), dim=0) / (4 * math.pi)
    average = (flow * direction).sum(0).view(40, -1).mean(1)
    power = 4 * math.pi * radius**2 * float((average * weights).sum() / 2)
    speed, turn = -amplitude * omega * times.sin(), -amplitude * omega**2 * times.cos()
    expected = 2 / 3 * charge**2 * float((turn**2 / (1 - speed**2) ** 3).mean())
    assert power == pytest.approx(expected, rel=1e-6)
