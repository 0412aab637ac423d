import itertools
import math
from fractions import Fraction

import pytest
import torch

from cliffsteer.solvers.exponential import ETDRK4, phi_functions


def exact_phi(order: int, z: Fraction) -> float:
    """φ_order(z) = Σ_j z^j / (j + order)!, in rational arithmetic."""
    terms = 80 + 4 * int(abs(z))
    return float(sum(z**j / math.factorial(j + order) for j in range(terms)))


def test_phi_functions_are_exact_to_rounding_for_all_sizes():
    values = [0.0, -1e-12, -1e-6, -1e-3, -0.1, -0.5, -0.999, -1.0, -1.001, -2.0, -7.0, -30.0, 0.3, 1.5]
    found = phi_functions(torch.tensor(values, dtype=torch.float64))
    for order, column in enumerate(found):
        for z, value in zip(values, column.tolist(), strict=True):
            assert value == pytest.approx(exact_phi(order, Fraction(z)), rel=2e-15 if order < 2 else 5e-15), (order, z)


def test_phi_functions_of_imaginary_numbers():
    x = torch.tensor([1e-9, 1e-3, 0.5, 0.99, 1.01, 3.0, 50.0], dtype=torch.float64)
    phi0, phi1, phi2, _ = phi_functions(1j * x)
    torch.testing.assert_close(phi0, torch.complex(x.cos(), x.sin()), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(phi1, torch.exp(0.5j * x) * torch.sinc(x / (2 * math.pi)), rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(phi2 * 1j * x + 1, phi1, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("rate", [0.0, -1.0, -1e4, 5j, -3 + 40j])
def test_linear_and_constant_parts_are_exact(rate):
    # u' = L u + f: u = e^{Lt} u₀ + t φ₁(Lt) f
    linear, u = torch.tensor([rate], dtype=torch.complex128), torch.tensor([1 - 2j], dtype=torch.complex128)
    f = torch.tensor([0.7 + 0.2j], dtype=torch.complex128)
    exact = torch.exp(linear) * u + phi_functions(linear)[1] * f
    step = ETDRK4(linear, 0.25).step
    for _ in range(4):
        u = step(u, lambda u: f)
    torch.testing.assert_close(u, exact, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("rate", [-20.0, 20j])
def test_order_four_on_stiff_problems(rate):
    # u' = L u + N(u) with u = (cos t, sin t): N = u' − L u, written as a function of u.
    linear = torch.tensor([rate, rate], dtype=torch.complex128)

    def nonlinear(u):
        x, y = u
        return torch.stack([-y * (x * x + y * y), x]) - linear * u

    errors = []
    for n in (32, 64, 128):
        u = torch.tensor([1, 0], dtype=torch.complex128)
        step = ETDRK4(linear, 1 / n).step
        for _ in range(n):
            u = step(u, nonlinear)
        errors.append(float((u - torch.tensor([math.cos(1), math.sin(1)])).norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(3.7 < order < 4.5 for order in orders), (errors, orders)
