"""Every `cliffsteer ...` line of the documentation composes: its verb, its options and its keys are there."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cliffsteer import cli
from cliffsteer.commands.schema import check, register

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
VARIABLES = {"$n": "8", "$run": "runs/a"}


def commands(page: Path) -> list[str]:
    """The command lines in the shell blocks of a page, without comments, each variable replaced by a value."""
    found = []
    for block in re.findall(r"^ *```(?:bash|sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            for name, value in VARIABLES.items():
                line = line.replace(name, value)
            found += re.findall(r"(?:^|[\s;])cliffsteer ((?:'[^']*'|\"[^\"]*\"|[^;#|&])+)", line.partition(" #")[0])
    return found


LINES = {line.strip(): page.name for page in PAGES for line in commands(page)}


def test_there_are_many():
    assert len(LINES) > 60
    assert {line.split()[0] for line in LINES} >= set(cli.VERBS) - {"demo"}


@pytest.fixture(scope="module")
def composed():
    register()
    store = ConfigStore.instance()
    store.store(group="solver", name="heat", node={"name": "heat"})  # the plugin of docs/plugins.md
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        yield compose
    del store.repo["solver"]["heat.yaml"]


@pytest.mark.parametrize("line", LINES, ids=[f"{page}: {line}" for line, page in LINES.items()])
def test_it_composes(composed, line):
    verb, *words = shlex.split(line)
    options, _ = cli._parse(verb, words)
    overrides = []
    for override in OverridesParser.create().parse_overrides(options.overrides):
        if override.get_key_element().startswith("hydra"):
            continue  # launchers are packages of their own
        swept = override.is_sweep_override()
        first = next(override.sweep_string_iterator()) if swept else None
        overrides.append(f"{override.get_key_element()}={first}" if swept else override.input_line)
    config = composed(verb, overrides)
    check(verb, config)
    OmegaConf.to_container(config, resolve=True)


def test_open_mappings_take_new_keys_and_nothing_else_does(composed):
    config = composed("train", cli._parse("train", ["loss.weights.density=100", "model.like.name=resnet"])[0].overrides)
    assert (config.loss.weights, config.model.like) == ({"density": 100}, {"name": "resnet"})
    with pytest.raises(Exception, match=r"Could not override 'loss\.wieghts\.density'"):
        composed("train", cli._parse("train", ["loss.wieghts.density=100"])[0].overrides)
