import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cliffsteer.commands.generate import recipe
from cliffsteer.commands.schema import register
from cliffsteer.solvers import create
from cliffsteer.solvers.maxwell3d_pdearena import SOURCES


def test_the_setting_is_that_of_the_paper():
    solver = create("maxwell3d_pdearena")
    fine = solver.yee.grid
    assert (solver.grid.shape, fine.shape) == ((32, 32, 32), (64, 64, 64))
    assert abs(fine.spacing[0] - 5e-7) < 1e-18
    assert abs(solver.dt / fine.spacing[0] - 0.99 / 3**0.5) < 1e-4
    assert solver.grid.is_periodic
    assert solver.spec["permittivity"].default == (10.0,)
    state = solver.initial([0])
    assert state.values["sheets"].shape == (1, 18, 11)
    assert float(solver.energy(state)) == 0


def test_the_recipe_stores_eight_frames_after_the_sources_fell_silent():
    register()
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        values = compose("generate", ["solver=maxwell3d_pdearena", "recipe=maxwell3d_pdearena"])
    made = recipe(OmegaConf.create(OmegaConf.to_container(values, resolve=True)))
    assert (made.frames, made.every) == (8, 25)
    assert made.options["sources"] == SOURCES
    solver = create("maxwell3d_pdearena")
    longest = SOURCES["cycles"] * SOURCES["wavelength"][1]
    assert longest <= made.skip * made.every * solver.dt < longest + 50 * solver.dt


def test_frames_differ_and_are_without_charge():
    # A quarter of the cells, so that it is quick.
    solver = create("maxwell3d_pdearena", resolution=8, substeps=25, dt=25 * 2.858e-7)
    state, frames = solver.initial([0, 1]), []
    for step in range(14):
        state = solver.advance(state)
        if step >= 10:
            assert solver.sources.silent(state.values["sheets"], state.values["time"])
            frames.append(solver.observe(state))
    charge = solver.yee.zeros(0, solver.edges(state)[0])
    solver.yee.add_divergence(charge, solver.edges(state), 1)
    size = max(float(e.abs().max()) for e in solver.edges(state)) / solver.yee.grid.spacing[0]
    assert float(charge[0].abs().max()) < 1e-12 * size
    frames = torch.cat(frames, 1)
    assert float((frames.diff(dim=1).flatten(2).norm(dim=2) / frames[:, 1:].flatten(2).norm(dim=2)).min()) > 0.1
