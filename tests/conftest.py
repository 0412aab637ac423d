"""Shared set-up of the tests: one thread per process, deterministic seeds."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator for random inputs and group elements."""
    return torch.Generator().manual_seed(0)
