"""Counted operations are those of the convolutions; throughput is a measured number."""

import math

import pytest
import torch
from torch import nn

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid, Surrogate
from cliffsteer.cost import cost, count_weights, flops
from cliffsteer.models import FNO, ResNet, available, create
from cliffsteer.nn import CliffordSteerableConv, SteerableSpectralConv
from cliffsteer.normalization import Normalization

PLANE = CliffordAlgebra((1, 1))
SPEC = FieldSpec((1, 1), [Field("phi", 0)])


def test_complex_weights_count_twice_and_frozen_ones_count():
    module = nn.Linear(2, 3, dtype=torch.complex64).requires_grad_(False)
    assert count_weights(module) == 2 * (6 + 3)


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


def test_a_free_convolution_counts_two_operations_for_each_weight_and_point():
    network = ResNet(PLANE, 2, 1, 6, (1,), 5)
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert flops(network, (3, 2, 4, 8, 10)) == 3 * 2 * weights * 8 * 10


@pytest.mark.parametrize("kernel", ["complete", "implicit", "conditional"])
def test_direct_steerable_convolutions_count_like_free_ones(kernel):
    conv = CliffordSteerableConv(PLANE, 3, 5, 7, kernel=kernel)
    kernels = 3 * 5 * 16 * 49
    counted = flops(conv, (2, 3, 4, 32, 32), "direct")
    assert counted > 2 * 2 * kernels * 32 * 32  # making the kernels comes on top
    assert counted < 2.5 * 2 * kernels * 32 * 32


def test_the_strategy_does_not_change_the_count():
    counts = {
        flops(CliffordSteerableConv(PLANE, 3, 3, 7, kernel="complete", strategy=strategy), (1, 3, 4, 32, 32), way)
        for strategy in ("auto", "direct", "spectral")
        for way in ("cheapest", "direct")
    }
    assert len(counts) == 2


def test_the_spectral_way_is_taken_where_it_is_cheaper():
    def conv(size):
        return CliffordSteerableConv(PLANE, 8, 8, size, kernel="complete", padding="periodic")

    shape = (1, 8, 4, 32, 32)
    assert flops(conv(1), shape) == flops(conv(1), shape, "direct")
    assert flops(conv(9), shape) < flops(conv(9), shape, "direct") / 9
    transforms = 2.5 * 16 * 4 * 1024 * 10
    assert flops(conv(9), shape) > transforms + 2 * 64 * 16 * 1024


def test_kernels_wider_than_the_grid_count_all_their_points():
    wide = {"kernel": "complete", "kernel_options": {"radial": "smooth"}, "padding": "periodic"}
    conv = CliffordSteerableConv(PLANE, 2, 2, 33, **wide, strategy="spectral")
    assert flops(conv, (1, 2, 4, 16, 16), "direct") > 2 * 4 * 16 * 33**2 * 256
    assert flops(conv, (1, 2, 4, 16, 16)) < 2 * 4 * 16 * 33**2 * 256


@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"padding": "valid"}, {"padding": "xla_same", "stride": 3}], ids=str
)
def test_shapes_are_those_of_the_convolution(options):
    conv = CliffordSteerableConv(PLANE, 2, 2, 7, kernel="complete", **options)
    network = nn.Sequential(conv, nn.Flatten(3))
    shape = (1, 2, 4, 32, 31)
    points = conv(torch.randn(shape)).shape[3:]
    assert flops(network, shape, "direct") >= 2 * 64 * 49 * math.prod(points)
    assert flops(nn.Sequential(conv, CliffordSteerableConv(PLANE, 2, 2, 3)), shape) > 0


def test_fourier_transforms_and_complex_products_count():
    layer = SteerableSpectralConv(PLANE, 2, 2, 3)
    transforms = 2 * 2.5 * 2 * 4 * 256 * 8
    count = flops(layer, (1, 2, 4, 16, 16))
    assert transforms < count < 3 * transforms


@pytest.mark.parametrize("name", [name for name in available() if name != "fno"])
def test_every_network_is_counted_and_left_as_it_is(name):
    network = create(name, CliffordAlgebra((1, -1)), 2, 1, hidden_channels=3).eval()
    assert flops(network, (1, 2, 4, 32, 32)) > 1e5
    assert not network.training
    assert next(network.parameters()).device.type == "cpu"
    assert network(torch.zeros(1, 2, 4, 32, 32)).isfinite().all()


def test_the_fno_is_counted():
    pytest.importorskip("neuralop")
    count = flops(FNO(PLANE, 2, 1, 4, modes=3), (1, 2, 4, 16, 16))
    modes = 4 * 8 * 4 * 4 * (6 * 4)  # blocks, complex multiply-add, pairs of channels, frequencies
    assert count > modes + 4 * 2 * 2.5 * 4 * 256 * 8


def test_errors():
    with pytest.raises(ValueError, match=r"`convolutions` \(='spectral'\) must be 'cheapest' or 'direct'"):
        flops(ResNet(PLANE, 1, 1, 2, (1,), 3), (1, 1, 4, 8, 8), "spectral")
