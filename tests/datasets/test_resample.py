import math
import re

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets.resample import block_average, colocate, shifted_axes, spectral_resample, to_centers
from cliffsteer.symmetry import lattice_symmetries

SIGNATURES = [(1,), (1, 1), (1, 1, 1), (1, -1, -1)]


def spec_of(signature):
    return FieldSpec(signature, [Field(f"f{k}", k) for k in range(len(signature) + 1)])


def noise(*shape):
    return torch.randn(shape, dtype=torch.float64)


# ------------------------------------------------------------------------------------------- centred to centred


def test_blocks_are_averaged():
    frames, grid = block_average(torch.arange(16.0).reshape(1, 1, 1, 4, 4), Grid((4, 4), 0.5, "slip"), 2)
    assert frames[0, 0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert grid == Grid((2, 2), 1.0, "slip")
    with pytest.raises(ValueError, match=r"`factor` \(=3\) must divide every side of the grid \(4, 4\)"):
        block_average(torch.zeros(1, 1, 1, 4, 4), Grid((4, 4)), 3)
    with pytest.raises(ValueError, match=r"the axes after \(batch, time, blade\) must be the grid's, \(8, 8\)"):
        block_average(torch.zeros(1, 1, 1, 4, 4), Grid((8, 8)), 2)


@pytest.mark.parametrize(("n", "m"), [(8, 12), (12, 8), (9, 6), (6, 9), (7, 16), (16, 7), (5, 5)])
def test_waves_that_both_grids_resolve_are_exact(n, m):
    def wave(grid):
        x = 2 * math.pi * grid.coordinates()[0] / grid.extent[0]
        return sum(math.sin(k) * torch.cos(k * x + k) for k in range((min(n, m) + 1) // 2))[None, None, None]

    old, new = Grid((n,), 3 / n), Grid((m,), 3 / m)
    frames, grid = spectral_resample(wave(old), old, (m,))
    assert grid == new
    torch.testing.assert_close(frames, wave(new), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [6, 7])
def test_refining_and_going_back_loses_nothing(n):
    frames, grid = noise(2, 3, 4, n, n), Grid((n, n))
    fine, finer = spectral_resample(frames, grid, (2 * n, 2 * n + 1))
    back, same = spectral_resample(fine, finer, (n, n))
    assert same.shape == grid.shape
    torch.testing.assert_close(back, frames, rtol=0, atol=1e-13)


def test_walls_cannot_be_resampled_by_waves():
    grid = Grid((4, 6), boundary=("periodic", "slip"))
    assert spectral_resample(noise(1, 1, 4, 4, 6), grid, (8, 6))[1] == Grid((8, 6), (0.5, 1.0), ("periodic", "slip"))
    with pytest.raises(ValueError, match=r"changes axis 1, which is not periodic \(slip\): there only `block_average`"):
        spectral_resample(noise(1, 1, 4, 4, 6), grid, (8, 3))
    for shape in ((8,), 12, "ab", (8.0, 6), (0, 6), None):
        message = (
            rf"`shape` \(={re.escape(repr(shape))}\) must hold a positive whole number of cells for each of 2 axes"
        )
        with pytest.raises(ValueError, match=message):
            spectral_resample(noise(1, 1, 4, 4, 6), grid, shape)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("shape", [(6,), (4,), (9,)])
def test_resampling_commutes_with_the_symmetries_of_the_lattice(signature, shape):
    spec, dim = spec_of(signature), len(signature)
    old = Grid((6,) * dim, 0.5)
    frames = noise(1, 1, spec.n_blades, *old.shape)
    operations = [lambda x: spectral_resample(x, old, shape * dim), lambda x: block_average(x, old, 3)]
    for operation in operations:
        expected, new = operation(frames)
        for symmetry in lattice_symmetries(spec.algebra, old):
            assert symmetry in set(lattice_symmetries(spec.algebra, new))
            found, _ = operation(symmetry.act(spec.algebra, frames))
            torch.testing.assert_close(found, symmetry.act(spec.algebra, expected), rtol=0, atol=1e-13)


def test_the_dtype_is_kept():
    frames, _ = spectral_resample(noise(1, 1, 4, 4, 4).float(), Grid((4, 4)), (8, 8))
    assert frames.dtype == torch.float32


# ----------------------------------------------------------------------------------------- staggered to centred


def test_the_points_of_each_staggering():
    assert shifted_axes((0,), 3, "faces") == [0]  # velocity of a MAC grid
    assert shifted_axes((0,), 3, "edges") == [1, 2]  # E of a Yee grid
    assert shifted_axes((0, 1), 3, "edges") == [2]  # B of a Yee grid
    assert shifted_axes((), 2, "faces") == []
    assert shifted_axes((0, 1), 2, None) == []


@pytest.mark.parametrize(
    ("points", "boundary"), [(4, "periodic"), (5, "periodic"), (5, "slip"), (4, "slip"), (3, "slip")]
)
def test_neighbours_are_averaged(points, boundary):
    grid = Grid((4,), boundary=boundary)
    found = to_centers(torch.arange(1.0, points + 1), grid, 0).tolist()
    wrapped = 2.5 if boundary == "periodic" else 2.0
    assert found == {5: [1.5, 2.5, 3.5, 4.5], 4: [1.5, 2.5, 3.5, wrapped], 3: [0.5, 1.5, 2.5, 1.5]}[points]


def test_a_wrong_number_of_points():
    with pytest.raises(
        ValueError, match=r"`values` has 3 points along axis 0 of 4 cells \(periodic\): expected 4 or 5"
    ):
        to_centers(torch.zeros(3), Grid((4,)), 0)


@pytest.mark.parametrize("staggering", ["faces", "edges"])
@pytest.mark.parametrize("signature", SIGNATURES)
def test_averaging_is_of_second_order(signature, staggering):
    spec, dim = spec_of(signature), len(signature)

    def smooth(x):
        return sum(torch.sin(2 * math.pi * (x[i] + 0.1 * i)) for i in range(dim)) * torch.cos(2 * math.pi * x[0])

    errors = []
    for n in (8, 16):
        grid = Grid((n,) * dim, 1 / n)
        x = grid.coordinates()
        parts, exact = {}, {}
        for field in spec.dynamic:
            blades = spec.algebra.blades[spec.algebra.grade_slice(field.grade)]
            shift = torch.zeros(len(blades), dim, *[1] * dim, dtype=torch.float64)
            for j, blade in enumerate(blades):
                shift[j, shifted_axes(blade, dim, staggering)] = 0.5 / n
            parts[field.name] = [smooth(x - s)[None, None] for s in shift]
            exact[field.name] = smooth(x).expand(1, 1, len(blades), *grid.shape)
        found = colocate(spec, grid, parts, dict.fromkeys(parts, staggering))
        errors.append(float((found - spec.pack(exact)).square().mean().sqrt()))
    assert 3.5 < errors[0] / errors[1] < 4.5


def turned(symmetry, spec, grid, parts, staggering):
    """Staggered components turned by a symmetry: values move, a shifted axis about the middle of its own points."""
    out = {}
    for field in spec.dynamic:
        slot = spec.slots[field.name]
        blades = spec.algebra.blades[spec.algebra.grade_slice(field.grade)]
        new = [None] * len(blades)
        for j in range(len(blades)):
            values = symmetry.move(parts[field.name][j])
            unit = torch.zeros(1, spec.n_blades, dtype=torch.float64)
            unit[0, slot.start + j] = 1
            image = symmetry.turn(spec.algebra, unit)[0, slot.start : slot.stop]
            target = int(image.abs().argmax())
            for axis in shifted_axes(blades[target], grid.dim, staggering):
                source = symmetry.axes.index(axis)
                if symmetry.signs[source] < 0 and grid.boundary[axis][0] == "periodic":
                    values = values.roll(1, values.ndim - grid.dim + axis)  # low faces: i -> -i
            new[target] = float(image[target]) * values
        out[field.name] = new
    return out


@pytest.mark.parametrize("boundary", ["periodic", "slip"])
@pytest.mark.parametrize("staggering", ["faces", "edges"])
@pytest.mark.parametrize("signature", SIGNATURES)
def test_colocation_commutes_with_the_symmetries_of_the_lattice(signature, staggering, boundary):
    spec, dim = spec_of(signature), len(signature)
    grid = Grid((4,) * dim, 0.5, boundary)
    parts = {}
    for field in spec.dynamic:
        parts[field.name] = []
        for blade in spec.algebra.blades[spec.algebra.grade_slice(field.grade)]:
            axes = shifted_axes(blade, dim, staggering)
            parts[field.name].append(noise(1, 1, *(4 + (boundary == "slip" and i in axes) for i in range(dim))))
    kinds = dict.fromkeys(parts, staggering)
    expected = colocate(spec, grid, parts, kinds)
    for symmetry in lattice_symmetries(spec.algebra, grid):
        found = colocate(spec, grid, turned(symmetry, spec, grid, parts, staggering), kinds)
        torch.testing.assert_close(found, symmetry.act(spec.algebra, expected), rtol=0, atol=1e-14)


def test_what_does_not_fit_is_refused():
    spec, grid = FieldSpec((1, 1), [Field("v", 1)]), Grid((4, 4))
    part = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"`staggering` of 'v' \(='nodes'\) must be 'faces' or 'edges'"):
        colocate(spec, grid, {"v": [part, part]}, {"v": "nodes"})
    with pytest.raises(ValueError, match=r"`staggering` names 'w', which `components` has not: v"):
        colocate(spec, grid, {"v": [part, part]}, {"w": "faces"})
    with pytest.raises(ValueError, match=r"`v` has 1 components: grade 1 has 2"):
        colocate(spec, grid, {"v": [part]})
