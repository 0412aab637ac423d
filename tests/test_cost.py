"""Counted operations are those of the convolutions; throughput is a measured number."""

import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.cost import cost, count_weights
from cliffsteer.normalization import Normalization

SPEC = FieldSpec((1, 1), [Field("phi", 0)])


def test_operations_of_a_plain_network_are_known():
    model = {"name": "resnet", "hidden_channels": 3, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(model, SPEC, Grid((8, 8)), 1.0, 1, 1, Normalization.identity(SPEC)).eval()
    found = cost(surrogate, batch_size=2)
    stem, blocks, head = (4 * 3 + 3 * 3), 2 * (3 * 3 * 9), (3 * 3 + 3 * 4)
    assert found["flops"] == 2 * 64 * (stem + blocks + head)
    assert found["weights"] == sum(p.numel() for p in surrogate.parameters())
    assert found["samples_per_second"] > 0
    assert (found["batch_size"], found["precision"], found["device"]) == (2, "float32", "CPU")
    assert cost(surrogate.double(), 1)["precision"] == "float64"
    assert cost(surrogate, 1)["flops"] == found["flops"]


def test_complex_weights_count_twice_and_frozen_ones_count():
    module = torch.nn.Linear(2, 3, dtype=torch.complex64).requires_grad_(False)
    assert count_weights(module) == 2 * (6 + 3)
