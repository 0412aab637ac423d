"""Every option of every group composes and builds what it describes; names and defaults agree with the code."""

import dataclasses
import inspect

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid, Surrogate, models, solvers
from cliffsteer.cli import main
from cliffsteer.commands.generate import recipe
from cliffsteer.commands.listing import groups, key_help, options
from cliffsteer.commands.schema import SCHEMAS, register
from cliffsteer.normalization import Normalization
from cliffsteer.solvers.registry import _BUILT_IN as BUILT_IN
from cliffsteer.training import TrainConfig
from cliffsteer.training.losses import create_loss
from cliffsteer.training.optimizers import create_optimizer, learning_rate_factor
from cliffsteer.training.parallel import Sharded, create_strategy

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
    tested = {"dataset", "experiment", "loss", "model", "optimizer", "precision", "recipe", "schedule", "solver"}
    tested |= {"strategy", "trainer"}
    assert set(groups()) == tested


@pytest.mark.parametrize("group", groups())
def test_every_option_says_in_a_line_what_it_is(group):
    lines = options(group)
    assert lines
    assert all(len(line) > 10 for line in lines.values()), lines


@pytest.mark.parametrize("name", choices("solver"))
def test_solvers_build_and_list_all_their_options(composed, name):
    values = composed("generate", f"solver={name}")["solver"]
    made = values.pop("name")
    defaults = {}
    for cls in reversed(type(solvers.create(made, resolution=8)).__mro__):
        parameters = inspect.signature(cls.__init__).parameters.values() if "__init__" in vars(cls) else ()
        defaults |= {p.name: p.default for p in parameters if p.default is not p.empty}
    assert values.keys() == defaults.keys()
    if name in BUILT_IN:  # the others are presets of one of them, with a name and values of their own
        assert (made, values) == (name, defaults)
    solver = solvers.create(made, **values | SMALL["solver"])
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
    fitted = models.fit_to_grid(model.options | small, Grid((28, 28)))
    network = models.create(model.name, CliffordAlgebra((1, 1)), 2, 1, **fitted)
    assert network(torch.randn(1, 2, 4, 28, 28)).shape == (1, 1, 4, 28, 28)


def test_mappings_of_a_command_line_may_have_keys_that_their_default_lacks(capsys):
    words = ["model.options.kernel_options={radial: smooth}", "model.options.kernel_options.n_radial=4"]
    words += ["model.match=params", "model.like={name: resnet, options: {blocks: [1]}}", "loss.weights={density: 2.0}"]
    assert main(["train", *words, "data.root=somewhere", "--cfg", "job"]) == 0
    values = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))
    options = values["model"]["options"].pop("kernel_options")
    assert {key: value for key, value in options.items() if value} == {"radial": "smooth", "n_radial": 4}
    assert values["model"]["like"] == {"name": "resnet", "options": {"blocks": [1]}}
    assert values["loss"]["weights"] == {"density": 2.0}
    assert main(["generate", "splits={train:3,held-out:2}", "--cfg", "job"]) == 0
    assert OmegaConf.create(capsys.readouterr().out)["splits"]["held-out"] == 2


@pytest.mark.parametrize("name", choices("optimizer"))
def test_optimizers_step(composed, name):
    config = train_config(composed, f"optimizer={name}").optimizer
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = create_optimizer(layer, config)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("name", choices("loss"))
def test_losses_build_and_give_a_gradient(composed, name):
    config = train_config(composed, f"loss={name}").loss
    spec, grid = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")]), Grid((8, 8))
    model = {"name": "csresnet", **SMALL["model"]}
    surrogate = Surrogate.create(model, spec, grid, 1.0, 1, 1, Normalization.identity(spec))
    frames = torch.randn(2, 1 + config.unroll, 4, 8, 8)
    batch = {"history": frames[:, :1], "future": frames[:, 1:], "parameters": torch.zeros(2, 0)}
    create_loss(surrogate, config)(surrogate, batch, 10_000)["loss"].backward()
    assert all(weight.grad is not None for weight in surrogate.parameters())


@pytest.mark.parametrize("name", choices("precision"))
def test_precisions_are_used(composed, name):
    words = {"float32": "32-true", "float64": "64-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
    assert train_config(composed, f"precision={name}", "trainer=quick").trainer.precision == words[name]


@pytest.mark.parametrize("name", choices("strategy"))
def test_strategies_are_used(composed, name, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    settings = train_config(composed, f"strategy={name}", "trainer.devices=2").trainer
    strategy = create_strategy(settings)
    assert strategy == "ddp" if name != "fsdp" else isinstance(strategy, Sharded)


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
    solvers.create(made.solver, **made.options)


@pytest.mark.parametrize("name", choices("solver"))
def test_every_solver_has_a_recipe_of_its_name_or_takes_the_default_one(composed, name):
    values = composed("generate", f"solver={name}", "n=3", "frames=3")
    made = recipe(OmegaConf.create(values))
    assert (made.splits, made.frames) == ({"train": 1, "valid": 1, "test": 1}, 3)
    assert made.solver == values["solver"]["name"]
    if name in choices("recipe"):
        own = composed("generate", f"recipe={name}")
        assert own["solver"].keys() == values["solver"].keys()
        assert own["solver"]["name"] == made.solver
        assert composed("generate", f"recipe={name}", "solver=wave")["solver"]["name"] == "wave"


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
        options = models.fit_to_grid(model.options, Grid((32, 32), boundary="no_slip"))
        network = models.create(model.name, CliffordAlgebra((1, 1)), 5, 1, **options)
        counts.append(sum(weight.numel() for weight in network.parameters()))
    assert len(counts) == 2
    assert max(counts) < 1.1 * min(counts)


def test_every_stage_of_the_demo_has_an_expected_time(composed):
    demo = composed("demo")
    stages = ["data", *(f"{verb} {name}" for verb in ("train", "evaluate") for name in demo["train"]), "loop", "report"]
    assert set(demo["expected"]) == set(stages)
