"""check_solver passes what keeps the contract, on all registered solvers, and names what does not."""

import pytest
import torch
from broken_solvers import BROKEN, Refusing, Slanted, Spin

from cliffsteer.solvers import available, create
from cliffsteer.solvers.registry import _BUILT_IN as BUILT_IN
from cliffsteer.symmetry import SignedPermutation
from cliffsteer.testing import check_solver

GENERATORS = [SignedPermutation((0, 1, 2), (-1, 1, 1)), SignedPermutation((1, 2, 0), (1, 1, 1))]

# Small options, and what the check must be told. Solvers that are not named here are checked with 8 cells a side.
CASES = {
    "klein_gordon": [
        ({"resolution": 8, "dim": 1, "scale": 0.5}, {}),
        ({"resolution": 7, "dim": 3, "scale": 0.5, "mass_range": (1, 9)}, {}),
    ],
    "klein_gordon_spacetime": [({"resolution": 8, "wavelengths": (0.6, 1.0), "boost": 0.1}, {"restores": False})],
    "maxwell_charges": [({"resolution": 4, "block": 4}, {"restores": False, "seeds": (0, 1), "steps": 1})],
    "maxwell_spacetime": [({"resolution": 6}, {"restores": False})],
    "maxwell2d": [({"resolution": 8}, {"restores": False})],
    "maxwell3d": [({"resolution": 6}, {}), ({"resolution": 6, "conductivity": 0.1, "dt": 0.5}, {})],
    "maxwell3d_pdearena": [({"resolution": 4}, {"roundtrip": 0.2})],  # frames are averages of 2³ cells
    "maxwell3d_yee": [
        ({"resolution": 6}, {}),
        ({"resolution": 6, "conductivity": 0.1, "boundary": "conductor", "inclusions": {"balls": 1}}, {}),
    ],
    "shallow_water": [
        ({"resolution": 16, "scale": 3e6}, {}),
        ({"resolution": 12, "scale": 4e6, "coriolis_range": (-1e-4, 1e-4), "gravity_range": (5, 10)}, {}),
    ],
    "smoke": [
        ({"resolution": 12}, {}),
        ({"resolution": 6, "dim": 3, "buoyancy_range": (0.1, 0.5), "viscosity_range": (0, 0.01)}, {}),
    ],
    "smoke_phiflow": [
        ({"resolution": 6}, {"tolerance": 1e-7, "seeds": (0, 1), "steps": 1, "differentiable": False}),
    ],
    "smoke_scene": [
        (
            {"resolution": 6, "boundary": ("slip", ("no_slip", "open")), "obstacle_radius": 7.0},
            {
                "tolerance": 1e-7,
                "seeds": (0, 1),
                "steps": 1,
                "differentiable": False,
                "symmetry": [SignedPermutation((0, 1), (-1, 1))],
            },
        ),
        (
            {"resolution": 6, "dim": 3, "obstacle_radius_range": (6, 8)},
            {"tolerance": 1e-7, "seeds": (0, 1), "steps": 1, "differentiable": False, "symmetry": GENERATORS},
        ),
    ],
    "turbulence": [
        ({"resolution": 12, "scale": 2.0, "substeps": 1, "viscosity_range": (0.01, 0.02)}, {}),
        ({"resolution": 14, "scale": 2.0, "substeps": 1, "forcing": "kolmogorov", "force_waves": 2}, {}),
        ({"resolution": 8, "scale": 3.0, "substeps": 1, "dim": 3}, {}),
    ],
    "wave": [({"resolution": 8, "scale": 0.5}, {})],
}
SLOW = {("smoke_phiflow", 0), ("smoke_scene", 1)}


def cases():
    for name in available():
        if name in BUILT_IN:  # other tests register plugins of their own
            for number, (options, told) in enumerate(CASES.get(name, [({"resolution": 8}, {})])):
                marks = [pytest.mark.slow] if (name, number) in SLOW else []
                yield pytest.param(name, options, told, marks=marks, id=f"{name}-{number}")


@pytest.mark.parametrize(("name", "options", "told"), list(cases()))
def test_all_solvers_keep_the_contract(name, options, told):
    check_solver(create(name, **options), **told)


# ------------------------------------------------------------------------------------------ solvers that do not


def test_a_sound_solver_passes():
    check_solver(Spin())
    check_solver(Spin(), symmetry=[SignedPermutation((1, 0), (-1, 1))], changes={"spin": 2.0}, seeds=(5, 6), steps=1)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_solver_is_caught_and_the_fault_named(name):
    cls, message, told = BROKEN[name]
    with pytest.raises(AssertionError, match=f"^solver 'spin': .*{message}") as caught:
        check_solver(cls(), **told)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_fewer_symmetries_and_averaged_frames_can_be_told():
    check_solver(Slanted(), symmetry=None)
    check_solver(Slanted(), symmetry=[SignedPermutation((0, 1), (1, 1))])
    check_solver(Refusing(), restores=False)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`seeds` \(=\(1, 1\)\) must hold two different ones"):
        check_solver(Spin(), seeds=(1, 1))
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        check_solver(Spin(), steps=0)
    with pytest.raises(ValueError, match="`changes` names 'spinn', which is no parameter field"):
        check_solver(Spin(), changes={"spinn": 1.0})


def test_the_global_generator_is_left_as_it_was():
    before = torch.random.get_rng_state()
    check_solver(Spin())
    assert torch.equal(torch.random.get_rng_state(), before)
