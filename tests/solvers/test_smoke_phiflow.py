import pytest
import torch

from cliffsteer import rollout
from cliffsteer.solvers import create

DRAWN = {"buoyancy_range": (0.3, 0.9), "viscosity_range": (0.005, 0.02)}


def gaps(a, b):
    return max(float((a.values[name] - b.values[name]).abs().max()) for name in a.values)


@pytest.mark.parametrize(("dim", "n", "steps"), [(2, 24, 5), (3, 8, 2)])
def test_agrees_with_the_native_solver_step_for_step(dim, n, steps):
    options = dict(DRAWN, resolution=n, dim=dim, dt=1.2)
    native, phiflow = create("smoke", **options), create("smoke_phiflow", **options, tolerance=1e-12)
    assert (native.spec, native.grid, native.dt) == (phiflow.spec, phiflow.grid, phiflow.dt)
    a, b = native.initial([3, 4, 5]), phiflow.initial([3, 4, 5])
    assert gaps(a, b) == 0
    assert all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)
    for _ in range(steps):
        a, b = native.advance(a), phiflow.advance(b)
        assert gaps(a, b) < 1e-10
    assert float(phiflow.mac.divergence(phiflow.faces(b)).abs().max()) < 1e-10
    assert b.values["density"].dtype == torch.float64


def test_agrees_on_a_violent_flow_that_looks_up_behind_the_walls():
    native, phiflow = create("smoke", resolution=16), create("smoke_phiflow", resolution=16, tolerance=1e-12)
    state = native.initial([0, 1])
    faces = native.mac.project([3 * torch.randn_like(f) for f in native.faces(state)])
    state = native.with_values(state, state.values["density"], faces)
    courant = max(float(f.abs().max()) for f in faces) * native.dt / native.grid.spacing[0]
    assert courant > 5
    assert gaps(native.advance(state), phiflow.advance(state)) < 1e-10


def test_steps_on_frames_like_the_native_solver():
    native, phiflow = create("smoke", resolution=16), create("smoke_phiflow", resolution=16)
    frames = rollout(native, native.observe(native.initial([0, 1])), 3)
    parameters = {"buoyancy": torch.tensor([[0.2, 0.3], [-0.4, 0.1]]), "viscosity": 0.03}
    torch.testing.assert_close(phiflow.step(frames, parameters), native.step(frames, parameters), rtol=0, atol=1e-9)
    assert phiflow.step(frames.float()).dtype == torch.float32


def test_the_tolerance_bounds_the_difference():
    native = create("smoke", resolution=16)
    state = native.advance(native.advance(native.initial([0])))
    found = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        found.append(
            gaps(create("smoke_phiflow", resolution=16, tolerance=tolerance).advance(state), native.advance(state))
        )
        assert found[-1] < 10 * tolerance
    assert found[0] > 10 * found[1] > 100 * found[2]


def test_bad_options_and_input_are_refused():
    with pytest.raises(ValueError, match=r"`tolerance` \(=0\) must lie between 0 and 1"):
        create("smoke_phiflow", tolerance=0)
    with pytest.raises(ValueError, match=r"`viscosity` \(=0.5 m²/s\) is unstable"):
        create("smoke_phiflow", viscosity=0.5)
    with pytest.raises(ValueError, match=r"`tolerence` is no option .* Did you mean 'tolerance'"):
        create("smoke_phiflow", tolerence=0.1)
    solver = create("smoke_phiflow", resolution=8, tolerance=1e-30)
    with pytest.raises(ValueError, match=r"`tolerance` \(=1e-30\) was not reached by the pressure solve"):
        solver.advance(solver.initial([0]))
