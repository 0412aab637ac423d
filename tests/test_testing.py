"""The test of the test: what is equivariant passes, what is not fails."""

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.models import ResNet
from cliffsteer.nn import MVGELU, MVLinear
from cliffsteer.testing import assert_equivariant

PLANE = CliffordAlgebra((1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("group", ["lattice", "orthogonal"])
def test_the_identity_passes(group, dtype):
    x = torch.randn(2, 3, 4, 6, 6, dtype=dtype)
    assert assert_equivariant(lambda x: x, x, PLANE, group=group) == 0


def test_a_plain_convolution_fails():
    network = ResNet(PLANE, 1, 1, hidden_channels=4, blocks=(1,), kernel_size=3, padding="periodic").double()
    with pytest.raises(AssertionError, match=r"not equivariant: relative error .* under SignedPermutation"):
        assert_equivariant(network, torch.randn(1, 1, 4, 6, 6, dtype=torch.float64), PLANE)


def test_componentwise_relu_and_nan_fail():
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(torch.relu, x, PLANE, group="orthogonal")
    with pytest.raises(AssertionError, match="relative error nan"):
        assert_equivariant(lambda x: x * float("nan"), x, PLANE, group="orthogonal")


def test_one_nan_among_good_elements_fails():
    calls = []

    def flaky(x):
        calls.append(x)
        return x * float("nan") if len(calls) == 4 else x

    with pytest.raises(AssertionError, match="relative error nan"):
        assert_equivariant(flaky, torch.randn(2, 3, 4, 6, 6, dtype=torch.float64), PLANE)


def test_own_elements_and_bad_groups():
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    assert assert_equivariant(MVLinear(PLANE, 3, 2).double(), x, PLANE, group=[PLANE.random_orthogonal()]) < 1e-14
    with pytest.raises(ValueError, match=r"`group` \(='rotations'\) must be"):
        assert_equivariant(MVGELU(), x, PLANE, group="rotations")
    with pytest.raises(AssertionError, match="nothing was tested"):
        assert_equivariant(MVGELU(), x, PLANE, group=[])
