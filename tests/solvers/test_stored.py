"""What is stored: the float64 simulation, rounded to float32 once, whatever simulated beside it."""

import pytest
import torch

from cliffsteer.datasets import Recipe, TrajectoryDataset, generate
from cliffsteer.datasets.recipe import trajectory_seed
from cliffsteer.solvers import create

SYSTEMS = {
    "klein_gordon": {"resolution": 8, "scale": 0.5, "mass_range": [1.0, 9.0]},
    "shallow_water": {"resolution": 12, "scale": 4e6, "coriolis_range": [-1e-4, 1e-4]},
    "turbulence": {
        "resolution": 12,
        "scale": 2.0,
        "forcing": "kolmogorov",
        "force_waves": 2,
        "force_range": [0.1, 0.3],
    },
    "wave": {"resolution": 6, "dim": 3, "scale": 0.6, "speed_range": [0.5, 2.0]},
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_float32_frames_of_a_float64_simulation(name, tmp_path):
    recipe = Recipe(name, SYSTEMS[name], {"train": 3, "valid": 1}, frames=3, every=2, skip=1, batch=2, seed=5)
    generate(recipe, tmp_path / "data", progress=False)
    stored = TrajectoryDataset(tmp_path / "data", "train")
    solver = create(name, **SYSTEMS[name])
    for start in (0, 2):  # shards of two trajectories and of one
        numbers = range(start, min(start + 2, 3))
        state = solver.initial([trajectory_seed(5, "train", number) for number in numbers])
        packed = solver.spec.pack_parameters(state.parameters, len(numbers))
        torch.testing.assert_close(
            stored.parameters[start : start + 2], packed.to(stored.parameters), rtol=1e-6, atol=0
        )
        for frame in range(3):
            state = solver.advance(solver.advance(state))
            for row, number in enumerate(numbers):
                found = stored.read(number, frame, frame + 1)
                assert found.dtype == torch.float32
                assert torch.equal(found[0], solver.observe(state)[row, 0].float())
