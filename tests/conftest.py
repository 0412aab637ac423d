"""Shared set-up of the tests: one thread per process, deterministic seeds."""

import signal

import pytest
import torch

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
