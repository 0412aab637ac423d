"""Kernels are functions of position: what they say on their lattice, they keep under every rotation and boost."""

import math

import pytest
import torch
from torch import nn

from cliffsteer import CliffordAlgebra
from cliffsteer.kernel_symmetry import (
    function_errors,
    is_fixed,
    kernel_at,
    kernel_values,
    sampled_errors,
    turns,
    why_no_function,
)
from cliffsteer.nn import CompleteKernel, ImplicitKernel

SIGNATURES = [(1, 1), (1, -1), (-1, 1, 1), (1, 1, 1), (1, -1, -1, -1), (1, 1, -1, -1)]
KERNELS = {
    "implicit": lambda algebra, size: ImplicitKernel(algebra, 2, 1, size),
    "smooth": lambda algebra, size: CompleteKernel(algebra, 2, 1, size, radial="smooth"),
    "smooth SO": lambda algebra, size: CompleteKernel(algebra, 2, 1, size, group="SO", radial="smooth"),
}


class OfTheInput(nn.Module):
    """A kernel that is made from the input."""

    def __init__(self, algebra):
        super().__init__()
        self.algebra = algebra

    def forward(self, x):
        return x


@pytest.mark.parametrize("signature", SIGNATURES)
def test_turns_are_orthogonal_and_boosts_are_those_between_signs(signature):
    algebra = CliffordAlgebra(signature)
    found = turns(algebra)
    pairs = math.comb(algebra.dim, 2)
    assert len(found) == pairs + (pairs > 1)
    assert all(algebra.is_orthogonal(g.matrix, 1e-14) and g.matrix.det() > 0 for g in found)
    p, q = signature.count(1), signature.count(-1)
    kinds = [g.kind for g in found[:pairs]]
    assert (kinds.count("boost"), kinds.count("rotation")) == (p * q, pairs - p * q)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("name", KERNELS)
def test_the_function_has_the_values_of_the_kernel_on_the_lattice_and_keeps_every_turn(signature, name, generator):
    algebra = CliffordAlgebra(signature)
    kernel = KERNELS[name](algebra, 3).double()
    offsets = kernel.basis.offsets.double()
    away = offsets.any(1)
    with torch.no_grad():
        sampled = kernel().flatten(2).permute(2, 0, 1)[away]
        values = kernel_at(kernel, offsets[away].T)
    # the profile of a smooth kernel is stored in float32
    torch.testing.assert_close(values, sampled, atol=1e-6 * float(sampled.abs().max()), rtol=0)
    errors = function_errors(kernel, turns(algebra), 16, generator)
    assert max(errors) < 1e-13


@pytest.mark.parametrize("causal", [False, True])
def test_orthochronous_kernels_too(causal, generator):
    algebra = CliffordAlgebra((1, -1, -1))
    kernel = CompleteKernel(algebra, 1, 1, 5, "orthochronous", "smooth", causal=causal).double()
    offsets = kernel.basis.offsets.double() / 2
    away = offsets.any(1)
    sampled = kernel().flatten(2).permute(2, 0, 1)[away]
    torch.testing.assert_close(kernel_at(kernel, offsets[away].T), sampled, atol=1e-6, rtol=0)
    assert max(function_errors(kernel, turns(algebra), 16, generator)) < 1e-13
    future = torch.tensor([[1.0], [0.2], [0.0]], dtype=torch.float64)
    assert bool(kernel_at(kernel, future).any()) == (not causal)
    assert kernel_at(kernel, -future).any()


def test_a_kernel_of_another_metric_is_found(generator):
    broken = KERNELS["smooth"](CliffordAlgebra((1, 1)), 5)
    assert max(function_errors(broken, turns(CliffordAlgebra((1, -1))), 16, generator)) > 0.1


def test_a_sampled_kernel_keeps_rotations_better_for_longer_waves_and_boosts_badly(generator):
    plane, spacetime = CliffordAlgebra((1, 1)), CliffordAlgebra((1, -1))
    kernel = ImplicitKernel(plane, 2, 2, 7)
    errors = [max(sampled_errors(kernel, turns(plane), wave, generator=generator)) for wave in (4.0, 8.0, 32.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[2]
    boosted = sampled_errors(ImplicitKernel(spacetime, 2, 2, 7), turns(spacetime), 32.0, generator=generator)
    assert min(boosted) > 0.1


def test_a_kernel_at_the_origin_alone_keeps_everything(generator):
    algebra = CliffordAlgebra((1, -1, -1))
    kernel = CompleteKernel(algebra, 2, 3, 1).double()
    assert max(sampled_errors(kernel, turns(algebra), 4.0, generator=generator)) < 1e-13
    assert "one point" in why_no_function(kernel)


def test_what_has_no_values_between_the_points_says_why():
    algebra = CliffordAlgebra((1, 1))
    free = CompleteKernel(algebra, 1, 1, 3)
    with pytest.raises(ValueError, match=r"cannot be evaluated between its points. .*on the lattice only"):
        kernel_at(free, torch.ones(2, 1))
    assert "depend on the input" in why_no_function(OfTheInput(algebra))
    assert why_no_function(ImplicitKernel(algebra, 1, 1, 3)) is None


def test_values_come_by_channel_and_blade():
    kernel = CompleteKernel(CliffordAlgebra((1, 1)), 2, 3, 5)
    values = kernel_values(kernel)
    assert values.shape == (3, 4, 2, 4, 5, 5)
    assert values[2, 1, 1, 3].equal(kernel()[2 * 4 + 1, 1 * 4 + 3].double().detach())


def test_values_that_depend_on_an_input_are_refused():
    algebra = CliffordAlgebra((1, 1))
    assert not is_fixed(OfTheInput(algebra))
    with pytest.raises(ValueError, match="OfTheInput, whose values depend on its input"):
        kernel_values(OfTheInput(algebra))
    with pytest.raises(ValueError, match="Linear, which has no `algebra`"):
        kernel_values(nn.Linear(1, 1))
