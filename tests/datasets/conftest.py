"""A plugin solver, importable in new processes too, and a small dataset made with it."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import advected_heat  # noqa: F401 (registers the solver)

from cliffsteer.datasets import Recipe, generate


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe("advected_heat", {"cells": 8}, {"train": 5, "valid": 2}, frames=11, batch=2, seed=3)


@pytest.fixture(scope="session")
def finished(recipe, tmp_path_factory) -> Path:
    """The dataset of the recipe; do not write to it."""
    return generate(recipe, tmp_path_factory.mktemp("datasets") / "heat", progress=False)


@pytest.fixture
def dataset(finished, tmp_path) -> Path:
    """A copy of the dataset, to damage."""
    return Path(shutil.copytree(finished, tmp_path / "heat"))
