"""Shared set-up of the tests: one thread per process, deterministic seeds."""

import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))  # what several test files use

# A process that was started in the background ignores Ctrl-C, and so do its children; tests that press it need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator for random inputs and group elements."""
    return torch.Generator().manual_seed(0)
