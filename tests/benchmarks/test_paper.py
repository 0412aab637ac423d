"""The studies of the published experiments can be read, and all that they run composes and fits its data."""

from dataclasses import asdict

import paper
import pytest
import study
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from cliffsteer import models, solvers
from cliffsteer.commands.generate import recipe
from cliffsteer.commands.schema import register
from cliffsteer.models.matching import matched_options
from cliffsteer.training import TrainConfig

TASKS = [
    (name, tier)
    for name in paper.experiments()
    for tier in yaml.safe_load((study.STUDIES / f"paper_{name}.yaml").read_text(encoding="utf-8"))["tiers"]
]


@pytest.fixture(scope="module")
def composed():
    register()
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        yield lambda verb, *words: OmegaConf.to_container(compose(verb, [_open(w) for w in words]), resolve=True)


def _open(word: str) -> str:
    """Mappings may have keys that their default lacks, as on the command line."""
    return f"++{word}" if "={" in word else word


def train_config(values: dict) -> TrainConfig:
    return TrainConfig.from_dict({key: values[key] for key in values if key not in ("name", "out", "resume")})


def test_every_experiment_has_the_tiers_of_the_command():
    assert {name for name, _ in TASKS} >= {"ns64", "maxwell3d", "maxwell_r12"}
    assert all((name, tier) in TASKS for name in paper.experiments() for tier in ("full", "small"))


@pytest.mark.parametrize(("name", "tier"), TASKS)
def test_studies_compose_and_their_data_feed_them(composed, name, tier, tmp_path):
    settings = study.read_study(f"paper_{name}", tier)
    made = recipe(OmegaConf.create(composed("generate", *settings["data"], *settings.get("boosted", ()))))
    solvers.create(made.solver, **made.options)
    assert made.splits["train"] >= max(settings["sizes"])
    planned = paper.planned(settings, tmp_path)
    assert len(planned) == len(settings["networks"]) * len(settings["sizes"]) * len(settings["seeds"])
    for run, network, size in planned:
        assert run.folder.name.startswith(f"{study.label(network)}-n{size}-seed")
        assert any(word.startswith("boosted=") for word in run.evaluate) == bool(settings.get("boosted"))
    config = train_config(composed("train", *planned[0][0].train))
    assert config.data.history + config.data.future <= made.frames
    assert config.model.like["name"] in models.available()


def test_every_network_of_the_studies_composes(composed):
    seen = {}
    for name, tier in TASKS:
        settings = study.read_study(f"paper_{name}", tier)
        for words in settings["networks"].values():
            seen.setdefault(tuple(words), settings["train"])
    for words, train in seen.items():
        assert train_config(composed("train", *train, *words, "data.root=data")).model.name in models.available()


@pytest.mark.parametrize(("name", "tier"), [task for task in TASKS if task[1] != "full"])
def test_every_network_of_the_smaller_tiers_meets_its_number_of_weights(composed, name, tier):
    settings = study.read_study(f"paper_{name}", tier)
    made = recipe(OmegaConf.create(composed("generate", *settings["data"])))
    solver = solvers.create(made.solver, **made.options)
    for words in settings["networks"].values():
        config = train_config(composed("train", *settings["train"], *words, "data.root=data"))
        into = config.data.history * solver.spec.n_multivectors + solver.spec.n_parameter_multivectors
        out = config.data.future * solver.spec.n_multivectors
        task = {"algebra": solver.spec.algebra, "in_channels": into, "out_channels": out, "grid": solver.grid}
        assert matched_options(asdict(config.model), **task)["hidden_channels"] > 0


@pytest.mark.parametrize("name", ["ns64", "maxwell3d", "maxwell_r12"])
def test_experiments_take_the_published_network_and_any_other(composed, name):
    config = train_config(composed("train", f"experiment=paper/{name}"))
    assert config.model.name == "csresnet"
    assert config.model.options["kernel"] == "implicit"
    assert config.model.options["blocks"] == [2, 2, 2, 2]
    assert config.data.root == f"data/paper/{name}"
    made = composed("generate", f"recipe=paper/{name}")
    assert made["out"] == config.data.root
    assert made["frames"] >= config.data.history + config.data.future
    other = train_config(composed("train", f"experiment=paper/{name}", "model=paper/fno"))
    assert (other.model.name, other.model.like) == ("fno", config.model.like)


def test_a_failed_run_is_told_and_leaves_the_others_alone(tmp_path, capfd):
    runs = [study.Run(tmp_path / "one", ("nonsense=1",), ()), study.Run(tmp_path / "two", (), ())]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "metrics.json").write_text("{}")
    failures = paper.run_all(runs, jobs=1)
    assert failures == [f"one: `cliffsteer train` failed, see {tmp_path / 'one' / 'log.txt'}."]
    assert "2 runs, 1 of them done" in capfd.readouterr().out
    assert "nonsense" in (tmp_path / "one" / "log.txt").read_text()
