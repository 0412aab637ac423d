import itertools
import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.mac import MacGrid

GRIDS = [
    Grid((12, 12), 0.5, "no_slip"),
    Grid((11, 14), (0.5, 0.3), ("slip", "periodic")),
    Grid((9, 9), 0.5, "periodic"),
    Grid((6, 7, 8), (0.5, 0.4, 0.3), "slip"),
    Grid((5, 6, 7), 0.5, ("periodic", "no_slip", "slip")),
]


def random_faces(mac: MacGrid, batch=2):
    shapes = [
        [n - (i == axis and not mac.periodic[axis]) for i, n in enumerate(mac.grid.shape)]
        for axis in range(mac.grid.dim)
    ]
    return [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]


def largest(*tensors):
    return max(float(t.abs().max()) for t in tensors)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_projection_removes_divergence_and_keeps_what_is_free_of_it(grid):
    mac = MacGrid(grid)
    faces = random_faces(mac)
    assert largest(mac.divergence(faces)) > 1
    projected = mac.project(faces)
    assert largest(mac.divergence(projected)) < 1e-12
    again = mac.project(projected)
    assert largest(*(a - b for a, b in zip(again, projected, strict=True))) < 1e-13
    # It is the orthogonal projection: what it took away is orthogonal to what it left.
    inner = sum(float(((f - p) * p).sum()) for f, p in zip(faces, projected, strict=True))
    assert abs(inner) < 1e-10


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_to_faces_inverts_the_average(grid):
    mac = MacGrid(grid)
    faces = mac.project(random_faces(mac))
    back = mac.to_faces(mac.to_centers(faces))
    assert largest(*(a - b for a, b in zip(back, faces, strict=True))) < 1e-11


def test_to_faces_is_the_least_squares_solution():
    mac = MacGrid(Grid((7, 8), 0.5, "no_slip"))
    velocity = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    best = mac.to_faces(velocity)
    assert largest(mac.divergence(best)) < 1e-12
    residual = float((mac.to_centers(best) - velocity).square().sum())
    for _ in range(5):
        change = mac.project(random_faces(mac, 1))
        nearby = [b + 1e-3 * c for b, c in zip(best, change, strict=True)]
        assert float((mac.to_centers(nearby) - velocity).square().sum()) > residual


def test_to_faces_of_white_noise_stays_small():
    mac = MacGrid(Grid((64, 64), 0.5, "no_slip"))
    faces = mac.to_faces(torch.randn(4, 2, 64, 64, dtype=torch.float64))
    power = sum(float(f.square().mean()) for f in faces) / 2
    assert power < 4


def test_an_even_periodic_grid_loses_only_the_checkerboard():
    mac = MacGrid(Grid((8, 8), 1.0, "periodic"))
    faces = mac.project(random_faces(mac))
    lost = [a - b for a, b in zip(faces, mac.to_faces(mac.to_centers(faces)), strict=True)]
    i = torch.arange(8)
    checkerboard = (-1.0) ** (i[:, None] + i)
    for part in lost:
        amplitude = (part * checkerboard).mean((1, 2), keepdim=True)
        assert largest(part) > 1e-3
        assert largest(part - amplitude * checkerboard) < 1e-12


def test_projection_of_an_analytic_field_converges_with_order_two():
    # u = ∇×ψ + ∇φ with ψ = sin² sin², φ = cos(πx) cos(2πy): the projection must leave ∇×ψ.
    errors = []
    for n in (16, 32, 64):
        mac = MacGrid(Grid((n, n), 1 / n, "no_slip"))
        inner, centre = torch.arange(1, n, dtype=torch.float64) / n, (torch.arange(n, dtype=torch.float64) + 0.5) / n
        pi = math.pi
        x, y = torch.meshgrid(inner, centre, indexing="ij")
        ux = torch.sin(pi * x) ** 2 * pi * torch.sin(2 * pi * y)
        gx = -pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
        x, y = torch.meshgrid(centre, inner, indexing="ij")
        uy = -pi * torch.sin(2 * pi * x) * torch.sin(pi * y) ** 2
        gy = -2 * pi * torch.cos(pi * x) * torch.sin(2 * pi * y)
        out = mac.project([(ux + gx)[None], (uy + gy)[None]])
        errors.append(largest(out[0] - ux, out[1] - uy))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert errors[-1] < 0.01
    assert all(1.9 < order < 2.1 for order in orders)


def test_open_sides_are_refused():
    with pytest.raises(ValueError, match=r"boundary \('no_slip', 'open'\) on axis 1: face velocities need walls"):
        MacGrid(Grid((8, 8), 1.0, ("slip", ("no_slip", "open"))))
