"""Fields without sources have none, gradients have nothing else; walls, duals and time have their own places."""

import math

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.metrics import Divergence

PLANE = FieldSpec((1, 1), [Field("phi", 0), Field("v", 1)])


def swirl(cells=16):
    """Velocity of the stream function sin x sin y, on [0, 2π]², and the gradient of the same function."""
    x, y = Grid((cells, cells), 2 * math.pi / cells).coordinates()
    stream = torch.stack([x.sin() * y.cos(), -x.cos() * y.sin()])
    slope = torch.stack([x.cos() * y.sin(), x.sin() * y.cos()])
    return [PLANE.pack({"phi": x[None, None], "v": v[None, None]}) for v in (stream, slope)]


def measured(spec, grid, prediction, truth):
    metric = Divergence(spec, grid, truth.shape[1])
    metric.update(prediction, truth)
    found = metric.compute()
    return {name: {who: found[who]["fields"][name] for who in found} for name in found["model"]["fields"]}


def test_a_stream_function_gives_zero_and_a_potential_one():
    stream, slope = swirl()
    result = measured(PLANE, Grid((16, 16), 2 * math.pi / 16), slope, stream)
    assert set(result) == {"v"}
    assert result["v"]["truth"] == [pytest.approx(0, abs=1e-12)]
    # (∂ᵢ∂ᵢφ)² = 4φ², and Σ (∂ᵢ∂ⱼφ)² = 2(sin²sin² + cos²cos²), of the mean 1/4 each
    assert result["v"]["model"] == [pytest.approx(1.0)]


def test_between_walls_differences_are_central_and_the_outermost_cells_left_out():
    grid = Grid((8, 6), (0.5, 0.25), "slip")
    x, y = grid.coordinates()
    prediction = PLANE.pack({"phi": x[None, None], "v": torch.stack([x**2, -2 * x * y])[None, None]})
    truth = PLANE.pack({"phi": x[None, None], "v": torch.stack([3 * x, -y])[None, None]})
    result = measured(PLANE, grid, prediction, truth)["v"]
    assert result["model"] == [pytest.approx(0, abs=1e-12)]
    assert result["truth"] == [pytest.approx(2 / math.sqrt(10))]


def test_noise_has_about_one_over_the_root_of_the_number_of_axes():
    spec, grid = FieldSpec((1, 1, 1), [Field("v", 1)]), Grid((15, 15, 15))
    noise = torch.randn(1, 1, 8, 15, 15, 15)
    assert measured(spec, grid, noise, noise)["v"]["model"] == [pytest.approx(1 / math.sqrt(3), rel=0.05)]


def test_the_magnetic_field_in_space_is_a_vector_in_disguise():
    spec, grid = FieldSpec((1, 1, 1), [Field("magnetic", 2)]), Grid((8, 8, 8), 2 * math.pi / 8)
    x, y, z = grid.coordinates()
    curl = torch.stack([y.sin(), z.sin(), x.sin()])  # components along x, y, z, without divergence
    source = torch.stack([x.sin(), y.sin(), z.sin()])
    blades = [torch.stack([b[2], -b[1], b[0]])[None, None] for b in (curl, source)]  # e12, e13, e23
    result = measured(spec, grid, *(spec.pack({"magnetic": b}) for b in blades))["magnetic"]
    assert result["model"] == [pytest.approx(0, abs=1e-12)]
    assert result["truth"] == [pytest.approx(1.0)]


def test_faradays_law_on_spacetime():
    """∂ₜB + ∂ₓE_y − ∂_yE_x = 0 for a wave along x with E_y = B, and not for E_y = −B."""
    spec, grid = FieldSpec((1, -1, -1), [Field("faraday", 2)]), Grid((8, 8, 4), 2 * math.pi / 8)
    t, x, _ = grid.coordinates()
    wave, zero = (x - t).sin(), torch.zeros_like(t)
    # F = E_i e1∧e_{1+i} + B e2∧e3, with the signs of ``lienard_wiechert``
    fields = [torch.stack([zero, e, wave])[None, None] for e in (wave, -wave)]
    good, bad = sorted(measured(spec, grid, *(spec.pack({"faraday": f}) for f in fields))["faraday"].values())
    assert good == [pytest.approx(0, abs=1e-12)]
    assert bad[0] > 0.5


def test_a_field_without_a_divergence_is_not_measured():
    scalar = FieldSpec((1, 1), [Field("phi", 0), Field("vorticity", 2)])
    assert measured(scalar, Grid((4, 4)), torch.randn(1, 1, 4, 4, 4), torch.randn(1, 1, 4, 4, 4)) == {}
    assert not Divergence(PLANE, Grid((2, 4), 1.0, "slip")).measured
    assert [f.name for f in Divergence(FieldSpec((1,), [Field("u", 0), Field("w", 1)]), Grid((4,))).measured] == ["w"]
