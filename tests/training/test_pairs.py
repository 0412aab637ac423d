"""One command trains any pair of experiment and model, and on every recipe: a step of each, on little data."""

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cliffsteer import Surrogate
from cliffsteer.commands.generate import recipe
from cliffsteer.commands.listing import options
from cliffsteer.commands.schema import register
from cliffsteer.datasets import WindowDataset, generate
from cliffsteer.datasets.windows import TrajectoryDataset
from cliffsteer.training import TrainConfig, train

pytestmark = pytest.mark.slow

CELLS = {"maxwell3d": 8, "maxwell_spacetime": 6, "maxwell2d": 10, "maxwell_charges": 10}
RECIPES = {
    "wave": [],
    "klein_gordon_spacetime": ["solver.block=8"],
    "smoke_open": [],
    "smoke_obstacle": [],
    "smoke_sampled": [],
    "smoke3d": [],
    "turbulence3d": [],
    "turbulence_forced": ["solver.force_waves=2"],
    "maxwell3d_yee": [],
    "maxwell3d_pdearena": [],
}
"""Recipes that no experiment has, on grids that a U-Net can halve, and what makes them small."""
SMALL = {"hidden_channels": 2, "kernel_size": 3, "modes": 2, "blocks": [1], "dilations": [1, 2]}


def composed(verb: str, *overrides: str) -> dict:
    register()
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        return OmegaConf.to_container(compose(verb, list(overrides)), resolve=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = {}

    def make(name: str):
        if name not in made:
            cells = CELLS.get(name, 12)
            small = [f"solver.resolution={cells}", "n=3", "frames=6", "skip=0", "batch=1"]
            small += ["solver.block=5"] if name in ("maxwell2d", "maxwell_charges", "maxwell_spacetime") else []
            values = composed("generate", f"recipe={name}", *small)
            folder = tmp_path_factory.mktemp("data") / name
            made[name] = generate(recipe(OmegaConf.create(values)), folder, progress=False, card=False)
        return made[name]

    return make


@pytest.fixture(scope="module")
def recipe_root(tmp_path_factory):
    made = {}

    def make(name: str):
        if name not in made:
            small = ["solver.resolution=8", "n=3", "frames=6", "skip=0", "batch=1", *RECIPES[name]]
            values = composed("generate", f"recipe={name}", *small)
            folder = tmp_path_factory.mktemp("recipes") / name
            made[name] = generate(recipe(OmegaConf.create(values)), folder, progress=False, card=False)
        return made[name]

    return make


@pytest.mark.parametrize("model", sorted(options("model")))
@pytest.mark.parametrize("experiment", sorted(set(options("experiment")) - {"demo"}))
def test_pair(root, tmp_path, experiment, model):
    values = composed("train", f"experiment={experiment}", f"model={model}")
    config = TrainConfig.from_dict({key: values[key] for key in values if key not in ("name", "out", "resume")})
    config.model.options |= {key: value for key, value in SMALL.items() if key in config.model.options}
    check(config, root(experiment), tmp_path)


@pytest.mark.parametrize("model", ["csresnet", "csunet", "resnet", "unet"])
@pytest.mark.parametrize("name", RECIPES)
def test_recipe(recipe_root, tmp_path, name, model):
    values = composed("train", f"model={model}", "data.root=data")
    config = TrainConfig.from_dict({key: values[key] for key in values if key not in ("name", "out", "resume")})
    small = SMALL | ({"blocks": [1, 1]} if "unet" in model else {})
    config.model.options |= {key: value for key, value in small.items() if key in config.model.options}
    check(config, recipe_root(name), tmp_path)


def test_every_recipe_meets_networks():
    published = {name for name in options("recipe") if name.endswith("_published")}
    assert set(options("recipe")) - published <= {*RECIPES, *options("experiment")}


def check(config, root, tmp_path):
    """Train two steps, and predict with what comes of it."""
    config.data.root = str(root)
    config.trainer.steps, config.trainer.validate_every, config.trainer.rollout_steps = 2, 2, 0
    config.trainer.images = config.trainer.progress = False
    surrogate = Surrogate.from_pretrained(train(config, tmp_path / "run") / "surrogate")
    window = WindowDataset(TrajectoryDataset(config.data.root, "test"), surrogate.history, surrogate.future)[0]
    with torch.no_grad():
        frames = surrogate(window["history"][None], window["parameters"][None])
    assert frames.shape == window["future"][None].shape
    assert frames.isfinite().all()
