import itertools

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.mac import MacGrid
from cliffsteer.solvers.scene_grid import SceneGrid, conjugate_gradients

SCENES = [
    (2, "no_slip"),
    (2, (("slip", "open"), "no_slip")),
    (2, (("open", "no_slip"), ("open", "open"))),
    (3, ("no_slip", ("no_slip", "open"), "slip")),
]
CENTER = torch.tensor([[1.3, -0.7, 0.4], [0.0, 0.0, 0.0], [-1.0, 1.2, 1.0]], dtype=torch.float64)
RADIUS = torch.tensor([[2.1], [0.0], [1.5]], dtype=torch.float64)


def scene(dim, boundary, n=8):
    grid = SceneGrid(Grid((n,) * dim, 8.0 / n, boundary))
    return grid, grid.solid(CENTER[:, :dim], RADIUS)


def random_flow(grid, solid):
    """Random faces without divergence: the projection of noise."""
    mask = [m.double() for m in grid.passable(solid)]
    faces = [torch.randn_like(m) * m for m in mask]

    def laplacian(p):
        gradient = grid._gradient(p.view(len(p), *grid.grid.shape))
        return -grid.divergence([g * m for g, m in zip(gradient, mask, strict=True)]).flatten(1)

    pressure = conjugate_gradients(laplacian, -grid.divergence(faces).flatten(1)).view(solid.shape)
    return [f - g * m for f, g, m in zip(faces, grid._gradient(pressure), mask, strict=True)]


def test_conjugate_gradients_solve_each_row_for_itself():
    root = torch.randn(2, 9, 9, dtype=torch.float64)
    matrix = root @ root.mT
    wanted = torch.randn(2, 9, dtype=torch.float64)
    wanted[1] = 0
    found = conjugate_gradients(lambda x: (matrix @ x[..., None])[..., 0], wanted)
    assert float(found[1].abs().max()) == 0
    alone = conjugate_gradients(lambda x: (matrix[:1] @ x[..., None])[..., 0], wanted[:1])
    torch.testing.assert_close(found[:1], alone, rtol=1e-10, atol=0)
    exact = torch.linalg.solve(matrix[0], wanted[0])
    shift = torch.linalg.norm(matrix[0] @ (found[0] - exact)) / wanted[0].norm()
    assert float(shift) < 1e-6


@pytest.mark.parametrize(("dim", "boundary"), SCENES)
def test_faces_are_blocked_by_walls_and_solid_cells_alone(dim, boundary):
    grid, solid = scene(dim, boundary)
    assert int(solid[0].sum()) > 4
    assert not bool(solid[1].any())
    rest = grid.rest(3)
    for axis, mask in enumerate(grid.passable(solid)):
        assert mask.shape == rest[axis].shape
        ones = [mask.double() if i == axis else torch.zeros_like(f) for i, f in enumerate(rest)]
        touched = (grid.pad(ones)[axis].narrow(axis + 1, 0, 8) + grid.pad(ones)[axis].narrow(axis + 1, 1, 8)) > 0
        assert not bool((touched & solid).any())
        low, high = grid.grid.boundary[axis]
        assert int(mask[1].sum()) == 8 ** (dim - 1) * (7 + (low == "open") + (high == "open"))


@pytest.mark.parametrize(("dim", "boundary"), SCENES)
def test_averages_of_a_flow_without_divergence_give_it_back(dim, boundary):
    grid, solid = scene(dim, boundary)
    faces = random_flow(grid, solid)
    assert float(grid.divergence(faces).abs().max()) < 1e-12
    back = grid.to_faces(grid.to_centers(faces), grid.passable(solid))
    assert max(float((a - b).abs().max()) for a, b in zip(faces, back, strict=True)) < 1e-11


@pytest.mark.parametrize(("dim", "boundary"), SCENES)
def test_any_velocity_becomes_a_flow_around_the_solid(dim, boundary):
    grid, solid = scene(dim, boundary)
    velocity = torch.randn(3, dim, *grid.grid.shape, dtype=torch.float64)
    masks = grid.passable(solid)
    faces = grid.to_faces(velocity, masks)
    assert float(grid.divergence(faces).abs().max()) < 1e-8
    assert all(float((f * ~m).abs().max()) == 0 for f, m in zip(faces, masks, strict=True))
    ratio = torch.cat([f.flatten() for f in faces]).norm() / velocity.norm()
    assert 0.5 < float(ratio) < 2


def test_the_checkerboard_of_a_box_open_all_round_is_what_frames_cannot_show():
    grid, solid = scene(2, "open")
    faces = random_flow(grid, solid)
    back = grid.to_faces(grid.to_centers(faces), grid.passable(solid))
    torch.testing.assert_close(grid.to_centers(back), grid.to_centers(faces), rtol=0, atol=1e-12)
    off = [float(max((a - b)[i].abs().max() for a, b in zip(faces, back, strict=True))) for i in range(3)]
    assert off[1] > 1e-4
    assert max(off[0], off[2]) < 1e-10


def test_a_closed_empty_box_is_that_of_the_mac_grid():
    grid, solid = scene(2, ("slip", "no_slip"))
    mac = MacGrid(grid.grid)
    solid = torch.zeros_like(solid)
    faces = random_flow(grid, solid)
    torch.testing.assert_close(grid.divergence(faces), mac.divergence(faces))
    centers = mac.to_centers(faces)
    torch.testing.assert_close(grid.to_centers(faces), centers)
    for a, b in zip(grid.to_faces(centers, grid.passable(solid)), mac.to_faces(centers), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dim", "n", "bound"), [(2, 16, 0.05), (3, 8, 0.12)])
def test_fractions_are_those_of_a_fine_grid(dim, n, bound):
    grid, solid = scene(dim, "no_slip", n)
    _, inside = scene(dim, "no_slip", n * 16)
    found = grid.fraction(CENTER[:, :dim], RADIUS)
    counted = inside.double()
    for axis in range(dim):
        counted = counted.unflatten(1 + axis, (n, 16)).mean(2 + axis)
    assert float((found - counted).abs().max()) < bound
    assert float((found - counted).abs().mean()) < 0.01
    assert torch.equal(solid, found >= 0.5)
    assert float(found[1].abs().max()) == 0
    assert (float(found.min()), float(found.max())) == (0, 1)


def test_ties_are_solid_on_all_sides():
    grid = SceneGrid(Grid((11, 11), 0.1, "no_slip"))
    center, radius = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64)
    solid = grid.solid(center, radius)[0]
    ends = [solid[5 + a, 5 + b] for a, b in itertools.product((-3, 0, 3), repeat=2) if a * b == 0]
    assert all(bool(end) for end in ends)
    assert torch.equal(solid, solid.flip(0))
    assert torch.equal(solid, solid.T)
