import itertools
import math

import pytest
import torch

from cliffsteer.solvers.semi_lagrangian import departure, interpolate


@pytest.mark.parametrize("shape", [(7,), (5, 6), (4, 5, 6)])
def test_interpolation_is_exact_for_multilinear_functions_and_clamps(shape, generator):
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij")
    weights = torch.randn(len(shape) + 1, dtype=torch.float64, generator=generator)

    def function(x):
        return weights[0] * math.prod(x) + sum(w * v for w, v in zip(weights[1:], x, strict=True))

    values = torch.stack([function(axes), -function(axes)])
    points = [(torch.rand(2, 9, dtype=torch.float64, generator=generator) * 1.6 - 0.3) * (n - 1) for n in shape]
    clamped = [p.clamp(0, n - 1) for p, n in zip(points, shape, strict=True)]
    assert any(bool((p != c).any()) for p, c in zip(points, clamped, strict=True))
    expected = function(clamped) * torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(interpolate(values, points), expected, rtol=1e-13, atol=1e-12)


def test_departure_points():
    step = torch.full((1, 3, 2), 0.25, dtype=torch.float64)
    x, y = departure((3, 2), [step, 2 * step], [1, 0])
    torch.testing.assert_close(x[0], torch.tensor([[0.75] * 2, [1.75] * 2, [2.75] * 2], dtype=torch.float64))
    torch.testing.assert_close(y[0], torch.tensor([[-0.5, 0.5]] * 3, dtype=torch.float64))


def test_a_turning_profile_converges_with_order_one():
    # A Gaussian carried by a quarter of a rigid rotation, Δt ∝ h.
    errors = []
    for n in (32, 64, 128):
        steps = n // 2
        centre = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
        x, y = torch.meshgrid(centre, centre, indexing="ij")

        def profile(a, b):
            return torch.exp(-((a - 0.2) ** 2 + b**2) / 0.01)

        turn = math.pi / 2 / steps * n
        q = profile(x, y)[None]
        for _ in range(steps):
            q = interpolate(q, departure((n, n), [-turn * y[None], turn * x[None]], [0, 0]))
        errors.append(float((q[0] - profile(y, -x)).norm() / n))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.7 < order < 1.2 for order in orders), (errors, orders)
