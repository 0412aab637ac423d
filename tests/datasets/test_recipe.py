import hashlib

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from cliffsteer.commands.generate import recipe as composed_recipe
from cliffsteer.commands.schema import register
from cliffsteer.datasets import Recipe, trajectory_seed
from cliffsteer.datasets.recipe import differences, recipe_overrides


def test_shards_cover_every_trajectory_once_in_order():
    recipe = Recipe("smoke", {}, {"train": 5, "test": 2}, frames=3, batch=2)
    assert list(recipe.shards()) == [
        ("train", 0, range(0, 2)),
        ("train", 1, range(2, 4)),
        ("train", 2, range(4, 5)),
        ("test", 0, range(0, 2)),
    ]


def test_seeds_are_the_documented_hash_and_differ():
    digest = hashlib.sha256(b"cliffsteer/7/train/12").digest()
    assert trajectory_seed(7, "train", 12) == int.from_bytes(digest[:8], "big") >> 1
    seeds = {trajectory_seed(s, split, i) for s in range(3) for split in ("train", "valid") for i in range(50)}
    assert len(seeds) == 300
    assert max(seeds) < 2**63


def test_options_become_json_and_survive_a_round_trip():
    recipe = Recipe("smoke", {"size": np.float64(2.5), "n": np.int64(3), "pair": (1, 2), "flag": True})
    assert recipe.options == {"size": 2.5, "n": 3, "pair": [1, 2], "flag": True}
    assert type(recipe.options["n"]) is int
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, r"`frames` \(=0\) must be a whole number, 1 or more"),
        ({"skip": -1}, r"`skip` \(=-1\)"),
        ({"batch": 2.5}, r"`batch` \(=2.5\)"),
        ({"splits": {}}, r"`splits` is empty"),
        ({"splits": {"a/b": 1}}, r"`splits` names 'a/b'"),
        ({"splits": {"train": 0}}, r"`splits\['train'\]` \(=0\)"),
        ({"options": {"dt": float("nan")}}, r"`options.dt` \(=nan\) must be JSON"),
        ({"options": {"f": [print]}}, r"`options.f\[0\]`"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**({"solver": "smoke"} | changes))


def test_differences_name_the_nested_key():
    one, two = Recipe("smoke", {"dt": 1}), Recipe("smoke", {"dt": 2.0}, frames=9)
    assert differences(one.to_dict(), two.to_dict()) == [
        "`frames` is 20 there, 9 here",
        "`options.dt` is 1 there, 2.0 here",
    ]
    assert differences(one.to_dict(), Recipe("smoke", {"dt": 1.0}).to_dict()) == []


@pytest.mark.parametrize(
    "made",
    [
        Recipe("smoke", {"resolution": 8, "buoyancy_range": [0.2, 0.8]}, {"train": 3, "valid": 1, "test": 2}, frames=7),
        Recipe("smoke", {"viscosity": None}, {"train": 3, "far-away": 1}, every=2, skip=1, batch=2, seed=9),
    ],
)
def test_overrides_make_the_recipe(made):
    register()
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        found = composed_recipe(compose("generate", recipe_overrides(made)))
    assert (found.solver, found.splits) == (made.solver, made.splits)
    assert found.options | made.options == found.options
    keys = ("frames", "every", "skip", "batch", "seed")
    assert [getattr(found, key) for key in keys] == [getattr(made, key) for key in keys]
