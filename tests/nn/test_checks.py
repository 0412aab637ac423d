"""A mistake in an argument ends in one sentence that names it."""

import numpy as np
import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import (
    CEGNN,
    CliffordSteerableConv,
    CliffordSteerableConvTranspose,
    CompleteKernel,
    ConditionalKernel,
    Downsample,
    GradeNorm,
    ImplicitKernel,
    MVLinear,
    Padding,
    SteerableSpectralConv,
    WeightedProduct,
)

PLANE = CliffordAlgebra((1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": (5, 5)}, r"`kernel_size` \(=\(5, 5\)\) must be a whole number, at least 1, one for all axes"),
        ({"kernel_size": 5.0}, r"`kernel_size` \(=5.0\) must be a whole number, at least 1: write 5"),
        ({"kernel_size": True}, r"`kernel_size` \(=True\) must be a whole number"),
        ({"stride": (2, 2)}, r"`stride` \(=\(2, 2\)\) must be a whole number"),
        ({"stride": 1.5}, r"`stride` \(=1.5\) must be a whole number"),
        ({"dilation": 0}, r"`dilation` \(=0\) must be at least 1"),
        ({"in_channels": 0}, r"`in_channels` \(=0\) must be at least 1"),
        ({"out_channels": None}, r"`out_channels` \(=None\) must be a whole number"),
        ({"algebra": (1, 1)}, r"`algebra` \(=\(1, 1\)\) must be a CliffordAlgebra: write CliffordAlgebra\(\(1, 1\)\)"),
        ({"padding": 1}, r"`padding` \(=1\) must be one of 'zeros'"),
        ({"padding": None}, r"`padding` \(=None\) must be one of 'zeros'"),
        ({"padding": (1, 2)}, r"`padding` \(=\(1, 2\)\) must be one of 'zeros'"),
        ({"padding": (("periodic", "zeros"), "zeros")}, r"must be 'periodic' on both sides of an axis or on none"),
        ({"kernel_options": {"hidden_channels": 0}}, r"`hidden_channels` \(=0\) must be at least 1"),
        ({"kernel_options": 3}, r"`kernel_options` \(=3\) must be options by name"),
        ({"kernel": None}, r"`kernel` \(=None\) must be a kernel's name or module"),
    ],
)
def test_convolutions(options, message):
    arguments = {"algebra": PLANE, "in_channels": 1, "out_channels": 1, "kernel_size": 5, **options}
    with pytest.raises(ValueError, match=message):
        CliffordSteerableConv(**arguments)


@pytest.mark.parametrize(
    "layer",
    [
        lambda a: CompleteKernel(a, 1, 1, 3),
        lambda a: ConditionalKernel(a, 1, 1, 3),
        lambda a: ImplicitKernel(a, 1, 1, 3),
        lambda a: SteerableSpectralConv(a, 1, 1, 2),
        lambda a: CliffordSteerableConvTranspose(a, 1, 1, 3),
        lambda a: MVLinear(a, 1, 1),
        lambda a: GradeNorm(a, 1),
        lambda a: WeightedProduct(a, 1, 1),
        Downsample,
    ],
)
def test_a_signature_is_no_algebra(layer):
    layer(PLANE)
    with pytest.raises(ValueError, match=r"`algebra` .* must be a CliffordAlgebra"):
        layer((1, 1))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda n: SteerableSpectralConv(PLANE, 1, 1, n), "modes"),
        (lambda n: SteerableSpectralConv(PLANE, n, 1, 2), "in_channels"),
        (lambda n: CliffordSteerableConvTranspose(PLANE, 1, 1, 5, stride=n), "stride"),
        (lambda n: MVLinear(PLANE, 1, n), "out_channels"),
        (lambda n: GradeNorm(PLANE, n), "channels"),
        (lambda n: CEGNN(PLANE, 1, 1, n), "hidden_channels"),
        (lambda n: Downsample(PLANE, n), "factor"),
        (lambda n: ImplicitKernel(PLANE, 1, 1, 3, layers=n), "layers"),
    ],
)
def test_whole_numbers(layer, name):
    layer(np.int64(2))
    for wrong in (0, 1.5, "2"):
        with pytest.raises(ValueError, match=rf"`{name}` \(=.*\) must be "):
            layer(wrong)


def test_width_of_a_padding():
    assert Padding(PLANE, (0, 2)).width == (0, 2)
    with pytest.raises(ValueError, match=r"`width` \(=-1\) must be at least 0"):
        Padding(PLANE, -1)


@pytest.mark.parametrize("strategy", ["direct", "spectral"])
def test_inputs_are_real_and_of_the_dtype_of_the_weights(strategy):
    conv = CliffordSteerableConv(PLANE, 1, 1, 3, strategy=strategy)
    x = torch.ones(1, 1, 4, 5, 5)
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.complex64):
        with pytest.raises(RuntimeError, match=rf"`x` has dtype {dtype}, but the weights .* torch.float32: "):
            conv(x.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(conv(x.bfloat16()), conv(x), rtol=0.05, atol=0.05)
        with pytest.raises(RuntimeError, match=r"`x` has dtype torch\.float64"):
            conv(x.double())
    assert conv.double()(x.double()).dtype == torch.float64
