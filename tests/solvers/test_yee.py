import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.yee import YeeGrid, average_blocks

GRIDS = [
    Grid((6, 5, 4), (0.5, 0.3, 0.2)),
    Grid((6, 5, 4), (0.5, 0.3, 0.2), "conductor"),
    Grid((6, 5), 0.3, ("conductor", "periodic")),
]


def random_field(yee, grade, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [yee.shape(blade) for blade in yee.blades(grade)]
    return [torch.randn(2, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def dot(a, b):
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_derivatives_of_derivatives_vanish_and_the_two_are_adjoint(grid):
    yee = YeeGrid(grid)
    for grade in range(grid.dim):
        field, other = random_field(yee, grade), random_field(yee, grade + 1, 1)
        up, down = yee.zeros(grade + 1, field[0]), yee.zeros(grade, field[0])
        yee.add_wedge(up, field, grade)
        yee.add_divergence(down, other, grade + 1)
        # Summation by parts: <∇∧F, G> = ∓ <F, ∇·G>.
        assert dot(up, other) == pytest.approx((-1) ** (grade + 1) * dot(field, down), rel=1e-12)
        if grade + 2 <= grid.dim:
            twice = yee.zeros(grade + 2, field[0])
            yee.add_wedge(twice, up, grade + 1)
            assert max(float(x.abs().max()) for x in twice) < 1e-12
        if grade >= 1:
            twice = yee.zeros(grade - 1, field[0])
            yee.add_divergence(twice, down, grade)
            assert max(float(x.abs().max()) for x in twice) < 1e-12


def mode(yee, blade):
    """Cosines along the axes of the blade, sines along the others, which vanish on walls; shape (1, *shape)."""
    x = torch.meshgrid(*yee.positions(blade), indexing="ij")
    waves = [(torch.cos if axis in blade else torch.sin)(2 * math.pi * x[axis]) for axis in range(len(x))]
    return math.prod(waves)[None]


@pytest.mark.parametrize("boundary", ["periodic", "conductor"])
def test_derivatives_and_averages_converge_with_order_two(boundary):
    found = []
    for n in (10, 20, 40):
        yee = YeeGrid(Grid((n, n, n), 1 / n, boundary))
        edges = [(axis + 1) * mode(yee, (axis,)) for axis in range(3)]
        faces, back = yee.zeros(2, edges[0]), yee.zeros(1, edges[0])
        yee.add_wedge(faces, edges, 1)
        yee.add_divergence(back, [mode(yee, blade) for blade in yee.blades(2)], 2)
        errors = [f - 2 * math.pi * (j - i) * mode(yee, (i, j)) for f, (i, j) in zip(faces, yee.blades(2), strict=True)]
        # ∂_j cos = −2π sin, with + for j > i and − for j < i: (∇·B)_i = −2π ((2 − i) − i) times the mode.
        errors += [b + 2 * math.pi * (2 - 2 * i) * mode(yee, (i,)) for i, b in enumerate(back)]
        x = yee.grid.coordinates()
        centers = [torch.cos(2 * math.pi * x[i]) * math.prod(torch.sin(2 * math.pi * x[j]) for j in range(3) if j != i)
                   for i in range(3)]  # fmt: skip
        averages = yee.to_centers([mode(yee, (axis,)) for axis in range(3)], 1)[0]
        errors.append(averages - torch.stack(centers))
        found.append([float(e.square().mean().sqrt()) for e in errors])
    for coarse, middle, fine in zip(*found, strict=True):
        assert coarse < 1e-12 or (1.9 < math.log2(coarse / middle) < 2.1 and 1.9 < math.log2(middle / fine) < 2.1)
    assert max(found[-1]) > 1e-3


@pytest.mark.parametrize("grid", [*GRIDS, Grid((7, 5, 9)), Grid((8, 9, 8), 1.0, "conductor")], ids=str)
@pytest.mark.parametrize("grade", [1, 2])
def test_fields_come_back_from_their_averages(grid, grade):
    yee = YeeGrid(grid)
    field = random_field(yee, grade)
    shown = yee.to_centers(field, grade)
    back = yee.from_centers(shown, grade)
    torch.testing.assert_close(yee.to_centers(back, grade), shown, rtol=0, atol=1e-12)
    for b, f, blade in zip(back, field, yee.blades(grade), strict=True):
        hidden = [a for a in range(grid.dim) if a not in blade and yee.periodic[a] and grid.shape[a] % 2 == 0]
        for axis in hidden:  # the checkerboard, which averages do not show
            sign = torch.tensor([1.0, -1.0]).repeat(grid.shape[axis] // 2).view(-1, *[1] * (grid.dim - 1 - axis))
            assert float((b * sign).mean(axis + 1).abs().max()) < 1e-12
            f -= sign * (f * sign).mean(axis + 1, keepdim=True)
        torch.testing.assert_close(b, f, rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "conductor"])
def test_long_waves_come_back_from_averages_over_blocks(boundary):
    yee = YeeGrid(Grid((16, 16, 16), 1 / 16, boundary))
    field = [mode(yee, (axis,)) for axis in range(3)]
    shown = yee.to_centers(field, 1, block=2)
    assert shown.shape == (1, 3, 8, 8, 8)
    torch.testing.assert_close(shown[:, 0], average_blocks(yee.to_centers(field, 1)[:, 0], 2))
    for back, expected in zip(yee.from_centers(shown, 1, block=2), field, strict=True):
        torch.testing.assert_close(back, expected, rtol=0, atol=1e-12)


def test_an_edge_takes_the_mean_of_the_cells_around_it():
    cells = torch.arange(24.0).view(1, 2, 3, 4)
    along = YeeGrid(Grid((2, 3, 4))).to_edges(cells)
    assert float(along[0][0, 1, 2, 3]) == float(cells[0, 1, 1:3, 2:4].mean())
    assert float(along[0][0, 1, 0, 0]) == float(cells[0, 1, [0, 0, 2, 2], [0, 3, 0, 3]].mean())
    walled = YeeGrid(Grid((2, 3, 4), 1.0, "conductor")).to_edges(cells)
    assert [tuple(x.shape[1:]) for x in walled] == [(2, 2, 3), (1, 3, 3), (1, 2, 4)]
    assert float(walled[2][0, 0, 1, 3]) == float(cells[0, :, 1:3, 3].mean())


def test_other_boundaries_are_refused():
    with pytest.raises(ValueError, match=r"`boundary` on axis 1 \(=\('slip', 'slip'\)\) must be 'periodic' or 'conduc"):
        YeeGrid(Grid((4, 4), 1.0, ("periodic", "slip")))
    with pytest.raises(ValueError, match=r"`boundary` on axis 0 \(=\('conductor', 'open'\)\)"):
        YeeGrid(Grid((4,), 1.0, (("conductor", "open"),)))
