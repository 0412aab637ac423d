import json

import pytest
from omegaconf import OmegaConf

from cliffsteer.comparison import HOW
from cliffsteer.training.config import MANNER, TrainConfig
from cliffsteer.training.engine import MAY_CHANGE


def minimal(**parts):
    return {"data": {"root": "data/smoke"}, **parts}


def test_round_trip_through_json():
    config = TrainConfig.from_dict(
        minimal(model={"name": "resnet", "options": {"blocks": [1, 2]}}, optimizer={"betas": [0.8, 0.95]})
    )
    assert config.optimizer.betas == (0.8, 0.95)
    assert config.model.options == {"blocks": [1, 2]}
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_hydra_config_gives_the_same():
    schema = OmegaConf.structured(TrainConfig)
    options = {"blocks": [1], "kernel_options": {"layers": 2}}
    composed = OmegaConf.merge(schema, minimal(model={"name": "csresnet", "options": options}, prediction="state"))
    config = TrainConfig.from_dict(composed)
    assert config == TrainConfig.from_dict(OmegaConf.to_container(composed))
    assert type(config.model.options["blocks"]) is list
    assert type(config.model.options["kernel_options"]) is dict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {}}, r"`data.root` is missing: give the folder"),
        ({"data": {"root": "d", "histroy": 2}}, r"`data.histroy` is no option .* Did you mean 'history'\?"),
        ({"optimiser": {}}, r"`optimiser` is no option .* Did you mean 'optimizer'\?"),
        ({"data": {"root": "d", "history": 0}}, r"`data.history` \(=0\) must be at least 1"),
        ({"data": None}, r"`data` \(=None\) must be a mapping with keys of root, .*history"),
        ({"optimizer": {"betas": 0.9}}, r"`optimizer.betas` \(=0.9\) must be 2 numbers from 0 to below 1"),
        ({"optimizer": {"betas": [2, 3]}}, r"`optimizer.betas` \(=\[2, 3\]\) must be 2 numbers"),
        ({"optimizer": {"betas": [0.9]}}, r"`optimizer.betas` \(=\[0.9\]\) must be 2 numbers"),
        ({"optimizer": {"lr": "1e-3"}}, r"`optimizer.lr` \(='1e-3'\) must be a number"),
        ({"trainer": {"steps": 2.5}}, r"`trainer.steps` \(=2.5\) must be a whole number"),
        ({"trainer": {"seed": 2**63}}, r"`trainer.seed` \(=9223372036854775808\) must lie between -2\^63 and 2\^63"),
        ({"trainer": {"steps": True}}, r"`trainer.steps` \(=True\) must be a whole number"),
        ({"trainer": {"images": 1}}, r"`trainer.images` \(=1\) must be true or false"),
        ({"data": {"root": 3}}, r"`data.root` \(=3\) must be a string"),
        ({"model": {"options": [1]}}, r"`model.options` \(=\[1\]\) must be a mapping"),
        ({"trainer": {"steps": 0}}, r"`trainer.steps` \(=0\) must be at least 1"),
        ({"trainer": {"ema_decay": 1.0}}, r"`trainer.ema_decay` \(=1.0\) must be below 1"),
        ({"optimizer": {"lr": 0.0}}, r"`optimizer.lr` \(=0.0\) must be positive"),
        ({"optimizer": {"lr": float("nan")}}, r"`optimizer.lr` \(=nan\) must be positive"),
        ({"optimizer": {"lr": float("inf")}}, r"`optimizer.lr` \(=inf\) must be positive and finite"),
        ({"loss": {"sobolev": float("inf")}}, r"`loss.sobolev` \(=inf\) must be a finite number"),
        (
            {"schedule": {"name": "constant", "final_factor": 0.5}},
            r"`schedule.final_factor` \(=0.5\) does nothing for `schedule.name` 'constant': leave it at 0.01, or take",
        ),
        (
            {"optimizer": {"name": "sgd", "eps": 1e-3}},
            r"`optimizer.eps` \(=0.001\) does nothing for `optimizer.name` 'sgd'",
        ),
        ({"optimizer": {"name": "adam_w"}}, r"`optimizer.name` \(='adam_w'\) must be one of .* Did you mean 'adamw'\?"),
        ({"schedule": {"name": "cosin"}}, r"`schedule.name` .* Did you mean 'cosine'\?"),
        ({"data": {"root": "d", "augment": "rotate"}}, r"`data.augment` .* Did you mean 'rotations'\?"),
        ({"prediction": "change"}, r"`prediction` \(='change'\) must be one of delta, state"),
        ({"trainer": {"precision": "8"}}, r"`trainer.precision` \(='8'\)"),
        ({"trainer": {"devices": 3}}, r"`data.batch_size` \(=16\) .* multiple of `trainer.devices` × .* \(=3\)"),
        ({"trainer": {"accumulate": 3}}, r"`data.batch_size` \(=16\) .* × `trainer.accumulate` \(=3\)"),
        ({"trainer": {"strategy": "dpp"}}, r"`trainer.strategy` \(='dpp'\) .* Did you mean 'ddp'\?"),
        ({"trainer": {"compile": "on"}}, r"`trainer.compile` \(='on'\) must be one of off, default"),
        (
            {"trainer": {"strategy": "fsdp", "precision": "64-true"}},
            r"`trainer.precision` \(='64-true'\) must be '32-true'",
        ),
        ({"loss": {"name": "push_forward"}}, r"`loss.name` .* Did you mean 'pushforward'\?"),
        ({"loss": {"units": "SI"}}, r"`loss.units` \(='SI'\) must be one of normalized, physical"),
        ({"loss": {"unroll": 2}}, r"`loss.unroll` \(=2\) needs `loss.name` 'pushforward' or 'unrolled'"),
        ({"loss": {"name": "unrolled"}}, r"`loss.unroll` \(=1\) must be at least 2"),
        ({"loss": {"curriculum": 5}}, r"`loss.unroll` \(=1\) must be at least 2 .* `loss.curriculum`"),
        (
            {"loss": {"name": "pushforward", "unroll": 2, "detach": 1}},
            r"`loss.detach` \(=1\) needs `loss.name` 'unrolled'",
        ),
        ({"loss": {"weights": {"density": -1}}}, r"`loss.weights.density` \(=-1\) must be a number of at least 0"),
        ({"loss": {"energy": -1.0}}, r"`loss.energy` \(=-1.0\) must be at least 0"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(minimal(**change))


def test_keys_that_change_the_result_are_no_matter_of_manner():
    assert MANNER.keys() == {"data", "trainer"}
    assert MANNER["data"] == ("workers",)
    assert {"devices", "log_every", "progress"} <= set(MANNER["trainer"])
    assert not {"seed", "steps", "ema_decay", "precision", "accumulate", "gradient_clip"} & set(MANNER["trainer"])
    assert {"data.workers", "trainer.progress", "trainer.steps", "data.root"} <= MAY_CHANGE
    assert not {"trainer.seed", "data.batch_size", "trainer.precision"} & MAY_CHANGE
    assert {"seed", "progress"} <= set(HOW["trainer"])
    assert "steps" not in HOW["trainer"]


def test_whole_numbers_do_for_floats_and_paths_for_strings(tmp_path):
    config = TrainConfig.from_dict({"data": {"root": tmp_path}, "optimizer": {"lr": 1}})
    assert (config.data.root, type(config.optimizer.lr)) == (str(tmp_path), float)


def test_a_config_is_a_mapping():
    with pytest.raises(ValueError, match=r"a training run \(=None\) must be a mapping with keys of data, model"):
        TrainConfig.from_dict(None)
