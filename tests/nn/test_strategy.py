"""The kernel that an evaluation keeps: never a stale one, whatever changes the parameters, and from any thread."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CliffordSteerableConv


def convolution(strategy):
    return CliffordSteerableConv(CliffordAlgebra((1, 1)), 2, 2, 3, kernel="complete", strategy=strategy).eval()


def is_true(conv, x):
    """Whether an evaluation gives what the parameters say now."""
    with torch.no_grad():
        return torch.allclose(conv(x), copy.deepcopy(conv).train()(x), atol=1e-6)


@pytest.mark.parametrize("frozen_between", [False, True])
@pytest.mark.parametrize("strategy", ["direct", "spectral"])
def test_fused_optimizers_in_evaluation_mode(strategy, frozen_between):
    """They do not count their changes; with weights that are fixed again afterwards, the gradients' forward tells."""
    conv, x = convolution(strategy), torch.randn(1, 2, 4, 6, 6)
    conv.requires_grad_(not frozen_between)
    assert is_true(conv, x)
    conv.requires_grad_(True)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        loss = conv(x).square().sum()
        if not frozen_between:
            assert is_true(conv, x)  # between the forward pass and the step
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if not frozen_between:
            assert is_true(conv, x)
    conv.requires_grad_(not frozen_between)
    assert is_true(conv, x)


@pytest.mark.parametrize("strategy", ["direct", "spectral"])
def test_averaged_weights(strategy):
    conv, x = convolution(strategy), torch.randn(1, 2, 4, 6, 6)
    average = copy.deepcopy(conv).requires_grad_(False)
    for update in (
        lambda a, b: [p.lerp_(q, 0.5) for p, q in zip(a, b, strict=True)],
        lambda a, b: torch._foreach_lerp_(a, b, 0.5),
        lambda a, b: torch._foreach_copy_(a, b),
    ):
        assert is_true(average, x)
        with torch.no_grad():
            torch.nn.init.normal_(conv.kernel.weight)
            update(list(average.parameters()), list(conv.parameters()))
        assert is_true(average, x)


def test_temporary_parameters_are_not_taken_for_each_other():
    """`functional_call` with tensors that come to lie where others lay."""
    conv, x = convolution("direct").requires_grad_(False), torch.randn(1, 2, 4, 6, 6)
    with torch.no_grad():
        outputs = []
        for factor in (1.0, 2.0, 3.0):
            parameters = {name: p * factor for name, p in conv.named_parameters()}
            outputs.append(torch.func.functional_call(conv, parameters, (x,)))
            del parameters
    assert torch.allclose(outputs[1], 2 * outputs[0], atol=1e-5)
    assert torch.allclose(outputs[2], 3 * outputs[0], atol=1e-5)


def test_threads_that_evaluate_together():
    conv = convolution("direct").requires_grad_(False)
    x = {dtype: torch.randn(1, 2, 4, 6, 6, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    with torch.no_grad():
        expected = conv(x[torch.float32])

    def run(number):
        with torch.no_grad(), torch.autocast("cpu", enabled=bool(number % 2)):  # what is kept differs between them
            return conv(x[torch.float32])

    with ThreadPoolExecutor(4) as pool:
        for number, y in enumerate(pool.map(run, range(40))):
            assert (y - expected).norm() < (0.02 if number % 2 else 1e-6) * expected.norm()
