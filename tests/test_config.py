"""Every option of every group composes and builds what it describes; names and defaults agree with the code."""

import dataclasses
import inspect

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cliffsteer import CliffordAlgebra, models, solvers
from cliffsteer.commands.generate import recipe
from cliffsteer.commands.listing import groups, key_help, options
from cliffsteer.commands.schema import SCHEMAS, register
from cliffsteer.solvers.registry import _BUILT_IN as BUILT_IN
from cliffsteer.training import TrainConfig
from cliffsteer.training.optimizers import create_optimizer, learning_rate_factor

SMALL = {"solver": {"resolution": 8}, "model": {"hidden_channels": 2, "blocks": [1], "kernel_size": 3}}


@pytest.fixture
def composed():
    register()
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        yield lambda verb, *overrides: OmegaConf.to_container(compose(verb, list(overrides)), resolve=True)


def train_config(composed, *overrides: str) -> TrainConfig:
    values = composed("train", *overrides)
    return TrainConfig.from_dict({key: values[key] for key in values if key not in ("name", "out", "resume")})


def choices(group: str) -> list[str]:
    return sorted(options(group))


def test_every_group_is_covered_here():
    tested = {"dataset", "experiment", "model", "optimizer", "recipe", "schedule", "solver", "trainer"}
    assert set(groups()) == tested


@pytest.mark.parametrize("group", groups())
def test_every_option_says_in_a_line_what_it_is(group):
    lines = options(group)
    assert lines
    assert all(len(line) > 10 for line in lines.values()), lines


@pytest.mark.parametrize("name", choices("solver"))
def test_solvers_build_and_list_all_their_options(composed, name):
    values = composed("generate", f"solver={name}")["solver"]
    assert values.pop("name") == name
    defaults = {}
    for cls in reversed(type(solvers.create(name, resolution=8)).__mro__):
        parameters = inspect.signature(cls.__init__).parameters.values() if "__init__" in vars(cls) else ()
        defaults |= {p.name: p.default for p in parameters if p.default is not p.empty}
    assert values == defaults
    solver = solvers.create(name, **values | SMALL["solver"])
    assert solver.grid.shape == (8,) * len(solver.grid.shape)


@pytest.mark.parametrize("name", sorted(BUILT_IN))  # tests register plugins of their own
def test_every_solver_has_a_config(name):
    assert name in choices("solver")


@pytest.mark.parametrize("name", choices("model"))
def test_models_build_and_list_all_their_options(composed, name):
    model = train_config(composed, f"model={name}").model
    known = inspect.signature(models.MODELS[model.name]).parameters
    assert set(model.options) == set(known) - {"algebra", "in_channels", "out_channels"}
    small = {key: value for key, value in SMALL["model"].items() if key in known}
    network = models.create(model.name, CliffordAlgebra((1, 1)), 2, 1, **model.options | small)
    assert network(torch.randn(1, 2, 4, 24, 24)).shape == (1, 1, 4, 24, 24)


@pytest.mark.parametrize("name", choices("optimizer"))
def test_optimizers_step(composed, name):
    config = train_config(composed, f"optimizer={name}").optimizer
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = create_optimizer(layer, config)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("name", choices("schedule"))
def test_schedules_give_a_learning_rate(composed, name):
    config = train_config(composed, f"schedule={name}").schedule
    assert config.name == name
    assert learning_rate_factor(config.warmup_steps, 1000, config) == pytest.approx(1.0)


@pytest.mark.parametrize("name", choices("trainer"))
def test_trainers_are_in_range(composed, name):
    assert train_config(composed, f"trainer={name}").trainer.steps >= 1


@pytest.mark.parametrize("name", choices("dataset"))
def test_datasets_say_where_they_are_and_what_makes_them(composed, name):
    data = train_config(composed, f"dataset={name}").data
    assert data.root == f"data/{name}"
    assert "cliffsteer generate" in options("dataset")[name]


@pytest.mark.parametrize("name", choices("recipe"))
def test_recipes_describe_a_dataset(composed, name):
    made = recipe(OmegaConf.create(composed("generate", f"recipe={name}")))
    assert set(made.splits) == {"train", "valid", "test"}
    assert made.frames > 4  # room for a history of four and one to predict


@pytest.mark.parametrize("name", choices("experiment"))
def test_experiments_are_training_runs_that_their_dataset_can_feed(composed, name):
    config = train_config(composed, f"experiment={name}")
    assert config.model.name in models.available()
    assert composed("train", f"experiment={name}")["out"].startswith("runs/")


def test_number_of_trajectories_splits_into_train_valid_and_test(composed):
    made = recipe(OmegaConf.create(composed("generate", "n=20")))
    assert made.splits == {"train": 16, "valid": 2, "test": 2}
    with pytest.raises(ValueError, match=r"`n` \(=2\) must be at least 3"):
        recipe(OmegaConf.create(composed("generate", "n=2")))


def test_options_of_the_solver_reach_the_recipe(composed):
    made = recipe(
        OmegaConf.create(composed("generate", "solver.resolution=16", "solver.buoyancy_range=[0.2,0.6]", "seed=7"))
    )
    assert made.solver == "smoke"
    assert made.options["resolution"] == 16
    assert made.options["buoyancy_range"] == [0.2, 0.6]
    assert made.seed == 7


def test_the_run_is_named_after_experiment_and_model(composed):
    assert composed("train", "experiment=smoke", "model=resnet")["out"] == "runs/smoke-resnet"


@pytest.mark.parametrize("verb", sorted(SCHEMAS))
def test_every_key_of_every_verb_is_explained(verb):
    lines = key_help(SCHEMAS[verb]).splitlines()
    assert len(lines) >= len(dataclasses.fields(SCHEMAS[verb]))
    assert all(line.partition(": ")[2] for line in lines), lines


def test_the_networks_of_the_demo_have_about_equally_many_weights(composed):
    demo = composed("demo")
    assert recipe(OmegaConf.create(composed("generate", *demo["generate"]))).splits["test"] >= 1
    counts = []
    for overrides in demo["train"].values():
        model = train_config(composed, *overrides).model
        network = models.create(model.name, CliffordAlgebra((1, 1)), 5, 1, **model.options)
        counts.append(sum(weight.numel() for weight in network.parameters()))
    assert len(counts) == 2
    assert max(counts) < 1.1 * min(counts)


def test_every_stage_of_the_demo_has_an_expected_time(composed):
    demo = composed("demo")
    stages = ["data", *(f"{verb} {name}" for verb in ("train", "evaluate") for name in demo["train"]), "loop", "report"]
    assert set(demo["expected"]) == set(stages)
