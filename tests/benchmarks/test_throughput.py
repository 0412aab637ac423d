"""The throughput benchmark knows every network."""

import argparse
import math

import pytest

pytest.importorskip("neuralop", reason="the FNO is an extra")

from throughput import CASES, MODELS, measure


@pytest.mark.parametrize("model", MODELS)
def test_every_network_is_measured(model):
    case = next(case for case in CASES if case.name == "tiny")
    result = measure(case, model, argparse.Namespace(device="cpu", match="none", repeats=1))
    assert result.parameters > 0
    assert result.gflops > 0
    assert math.isfinite(result.samples_per_s)
