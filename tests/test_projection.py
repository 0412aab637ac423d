import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Stepper
from cliffsteer.projection import CurlFree, DivergenceFree, Positive, PreserveMean, Projected, Projection
from cliffsteer.solvers import create
from cliffsteer.testing import assert_equivariant

SPECS = {
    2: FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")]),
    3: FieldSpec((1, 1, 1), [Field("electric", 1, "V/m"), Field("magnetic", 2, "V/m")]),
    (1, -1, -1): FieldSpec((1, -1, -1), [Field("faraday", 2, "V/m")]),
}


def noise(spec, *shape):
    frames = torch.randn(2, 3, spec.n_blades, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return frames.masked_fill(~spec.occupied.view(-1, *[1] * len(shape)), 0)


def derivative(x, axis, h=1.0):
    """Spectral ∂ of (batch, time, *grid) along a grid axis; Nyquist's wave has none."""
    n = x.shape[2 + axis]
    k = 2 * torch.pi * torch.fft.fftfreq(n, h, dtype=torch.float64)
    if n % 2 == 0:
        k[n // 2] = 0
    k = k.view(-1, *[1] * (x.ndim - 3 - axis))
    return torch.fft.ifft(1j * k * torch.fft.fft(x, dim=2 + axis), dim=2 + axis).real


def assert_projection(projection, frames):
    """Idempotent, orthogonal, and nothing but the field is changed."""
    out = projection(frames, frames)
    torch.testing.assert_close(projection(out, frames), out, rtol=0, atol=1e-12)
    removed = frames - out
    assert float(removed.norm()) > 0.1
    assert abs(float((removed * out).sum())) < 1e-9
    start, stop = projection.slot.start, projection.slot.stop
    assert torch.equal(removed[:, :, :start], torch.zeros_like(removed[:, :, :start]))
    assert torch.equal(removed[:, :, stop:], torch.zeros_like(removed[:, :, stop:]))
    return out


@pytest.mark.parametrize("shape", [(9, 9), (8, 12)])
def test_a_velocity_without_divergence(shape):
    spec = SPECS[2]
    grid = Grid(shape, (0.5, 0.25))
    out = assert_projection(DivergenceFree(spec, grid), noise(spec, *shape))
    x, y = spec.unpack(out)["velocity"].unbind(2)
    divergence = derivative(x, 0, 0.5) + derivative(y, 1, 0.25)
    assert float(divergence.abs().max()) < 1e-12


def test_fields_of_other_grades_in_space():
    spec, grid = SPECS[3], Grid((5, 6, 7))
    frames = noise(spec, 5, 6, 7)
    bivector = spec.unpack(assert_projection(CurlFree(spec, grid, "magnetic"), frames))["magnetic"]
    xy, xz, yz = bivector.unbind(2)
    assert float((derivative(yz, 0) - derivative(xz, 1) + derivative(xy, 2)).abs().max()) < 1e-12
    xy, xz, yz = spec.unpack(DivergenceFree(spec, grid, "magnetic")(frames))["magnetic"].unbind(2)
    assert float((derivative(xy, 0) - derivative(yz, 2)).abs().max()) < 1e-12  # component e2 of ∇⌋B
    parts = DivergenceFree(spec, grid, "electric")(frames) + CurlFree(spec, grid, "electric")(frames)
    kept = spec.unpack(parts - frames)["electric"][:, :, 0]  # the waves that are both: the mean, and Nyquist's
    assert all(float(derivative(kept, axis).abs().max()) < 1e-12 for axis in range(3))


def test_on_spacetime_the_bianchi_identity_holds():
    spec = SPECS[1, -1, -1]
    grid = Grid((6, 5, 7))
    out = spec.unpack(CurlFree(spec, grid, "faraday")(noise(spec, 6, 5, 7)))["faraday"]
    tx, ty, xy = out.unbind(2)
    # ∇∧F with ∇ = e₀∂ₜ − e₁∂ₓ − e₂∂_y
    assert float((derivative(xy, 0) + derivative(ty, 1) - derivative(tx, 2)).abs().max()) < 1e-12


def test_velocities_between_walls_come_from_faces_without_divergence():
    solver = create("smoke", resolution=10)
    project = DivergenceFree(solver.spec, solver.grid)
    out = assert_projection(project, noise(solver.spec, 10, 10))
    state = solver.restore(out)
    assert float(solver.mac.divergence(solver.faces(state)).abs().max()) < 1e-12
    torch.testing.assert_close(solver.observe(state)[:, :, 1:3], out[:, -1:, 1:3], rtol=0, atol=1e-12)


def test_the_mean_is_that_of_the_frame_before():
    spec = SPECS[2]
    frames, before = noise(spec, 6, 8), noise(spec, 6, 8) + 1
    for field in ("density", "velocity"):
        out = spec.unpack(PreserveMean(spec, field)(frames, before))[field]
        expected = spec.unpack(before)[field][:, -1:].mean((3, 4))
        torch.testing.assert_close(out.mean((3, 4)), expected.expand(-1, 3, -1), rtol=0, atol=1e-13)


def test_positive_fields_are_the_closest_of_the_same_mean():
    spec = SPECS[2]
    project = Positive(spec, "density")
    frames = noise(spec, 6, 8) + 0.3
    out = project(frames)
    u, v = frames[:, :, 0], out[:, :, 0]
    assert float(v.min()) == 0
    torch.testing.assert_close(v.mean((2, 3)), u.mean((2, 3)), rtol=1e-12, atol=0)
    torch.testing.assert_close(project(out), out, rtol=0, atol=1e-13)
    # what is taken is the same where something is left, and no more than that elsewhere: the optimality condition
    taken, kept = (u - v).flatten(2), (v > 0).flatten(2)
    for one, mask in zip(taken.flatten(0, 1), kept.flatten(0, 1), strict=True):
        assert float(one[mask].std()) < 1e-12
        assert float(one[~mask].max()) <= float(one[mask].mean()) + 1e-12
    assert torch.equal(project(frames.abs()), frames.abs())
    assert not project(-frames.abs())[:, :, 0].any()


def test_they_are_differentiable():
    spec, grid = SPECS[2], Grid((4, 5))
    x = noise(spec, 4, 5)[:1, :1].requires_grad_()
    layers = [
        DivergenceFree(spec, grid),
        DivergenceFree(spec, Grid((4, 5), 1.0, "no_slip")),
        PreserveMean(spec, "density"),
        Positive(spec, "density"),
    ]
    for layer in layers:
        before = torch.ones_like(x)
        assert torch.autograd.gradcheck(lambda y, layer=layer, before=before: layer(y, before), x)


def test_they_commute_with_the_symmetries_of_the_grid():
    spec, grid = SPECS[2], Grid((6, 6))
    for layer in (
        DivergenceFree(spec, grid),
        DivergenceFree(spec, Grid((6, 6), 1.0, "slip")),
        Positive(spec, "density"),
    ):
        assert_equivariant(layer, noise(spec, 6, 6), spec.algebra)


def test_single_precision_stays():
    spec, grid = SPECS[2], Grid((6, 6))
    for boundary in ("periodic", "no_slip"):
        layer = DivergenceFree(spec, Grid((6, 6), 1.0, boundary))
        assert layer(noise(spec, 6, 6).float()).dtype == torch.float32
    assert not DivergenceFree(spec, grid).state_dict()


class Jump:
    """Adds noise to everything."""

    history = 1

    def __init__(self, like):
        self.spec, self.grid, self.dt = like.spec, like.grid, like.dt

    def step(self, frames, parameters=None):
        change = torch.randn(frames[:, -1:].shape, dtype=frames.dtype, generator=torch.Generator().manual_seed(0))
        return frames[:, -1:] + change.masked_fill(~self.spec.occupied.view(-1, 1, 1), 0)


def test_a_projected_stepper_is_a_stepper():
    solver = create("turbulence", resolution=12, scale=4.0)
    laws = [DivergenceFree(solver.spec, solver.grid), PreserveMean(solver.spec, "scalar")]
    stepper = Projected(Jump(solver), laws)
    assert isinstance(stepper, Stepper)
    assert (stepper.spec, stepper.grid, stepper.dt, stepper.history) == (solver.spec, solver.grid, solver.dt, 1)
    frames = solver.observe(solver.initial([0, 1]))
    out = stepper.step(frames)
    torch.testing.assert_close(laws[0](out), out, rtol=0, atol=1e-12)
    torch.testing.assert_close(out[:, :, 0].mean((2, 3)), frames[:, :, 0].mean((2, 3)), rtol=0, atol=1e-13)


def test_what_cannot_be_projected_is_refused():
    spec, grid = SPECS[2], Grid((6, 6))
    with pytest.raises(TypeError, match=r"abstract .*project"):
        Projection(spec, "velocity")
    with pytest.raises(ValueError, match="No field 'speed'"):
        DivergenceFree(spec, grid, "speed")
    with pytest.raises(ValueError, match=r"`grid` has boundary .*open.*: face velocities need walls"):
        DivergenceFree(spec, Grid((6, 6), 1.0, "open"))
    with pytest.raises(ValueError, match=r"`field` .* has grade 0: only vectors live on faces"):
        DivergenceFree(spec, Grid((6, 6), 1.0, "slip"), "density")
    with pytest.raises(ValueError, match="Fourier series need periodic sides"):
        CurlFree(spec, Grid((6, 6), 1.0, "slip"), "velocity")
    with pytest.raises(ValueError, match="has grade 1: only scalars can be positive"):
        Positive(spec, "velocity")
    with pytest.raises(ValueError, match="`before` is missing: the mean of 'density'"):
        PreserveMean(spec, "density")(noise(spec, 6, 6))
    solver = create("smoke", resolution=8)
    with pytest.raises(ValueError, match=r"`field` .* is a parameter"):
        Positive(solver.spec, "viscosity")
    with pytest.raises(ValueError, match="`projections` holds one for"):
        Projected(solver, [DivergenceFree(spec, grid)])
    other = create("smoke", resolution=16)
    with pytest.raises(
        ValueError, match=r"holds one for Grid\(shape=\(16, 16\).*, but the stepper has Grid\(shape=\(8, 8"
    ):
        Projected(solver, [DivergenceFree(solver.spec, other.grid)])
    periodic = Grid(solver.grid.shape, solver.grid.spacing, "periodic", solver.grid.unit)
    with pytest.raises(ValueError, match=r"`projections` holds one for Grid.*periodic.*: make it for the stepper's"):
        Projected(solver, [DivergenceFree(solver.spec, periodic)])
    Projected(solver, [PreserveMean(solver.spec, "density")])
