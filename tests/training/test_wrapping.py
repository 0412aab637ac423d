import copy

import pytest
import torch
from torch import nn

from cliffsteer import CliffordAlgebra, models
from cliffsteer.testing import assert_equivariant
from cliffsteer.training.wrapping import FULL_PRECISION, blocks, checkpoint_blocks, keep_full_precision, named_parts

PLANE = CliffordAlgebra((1, 1))
OPTIONS = {
    "csresnet": {"hidden_channels": 3, "blocks": [2, 1], "kernel_size": 3},
    "csunet": {"hidden_channels": 3, "blocks": [1, 1], "kernel_size": 3},
    "csfno": {"hidden_channels": 3, "blocks": [3], "modes": 3},
    "resnet": {"hidden_channels": 6, "blocks": [3], "kernel_size": 3},
    "steerable_resnet": {"hidden_channels": 1, "blocks": [3], "kernel_size": 3},
    "gfno": {"hidden_channels": 1, "blocks": [3], "modes": 3},
}
each = pytest.mark.parametrize("name", OPTIONS)


def make(name, algebra=PLANE, **options):
    torch.manual_seed(0)
    return models.create(name, algebra, 2, 1, **OPTIONS[name] | options)


class Kept:
    """Bytes of the distinct tensors that autograd keeps for the backward pass."""

    def __init__(self):
        self.sizes = {}

    def pack(self, tensor):
        self.sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def of(self, network, x):
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor):
            y = network(x)
        return y, sum(self.sizes.values())


@each
def test_checkpointed_blocks_give_the_same_gradients_and_keep_less(name, generator):
    plain = make(name)
    wrapped = copy.deepcopy(plain)
    assert checkpoint_blocks(wrapped) == 3
    x = torch.randn(2, 2, 4, 16, 16, generator=generator)
    results = []
    for network in (plain, wrapped):
        y, kept = Kept().of(network, x)
        y.square().mean().backward()
        results.append((y, kept, {name: weight.grad for name, weight in network.named_parameters()}))
    (y, kept, gradients), (other, less, same) = results
    assert torch.equal(y, other)
    assert less < 0.75 * kept
    torch.testing.assert_close(same, gradients)
    assert wrapped.state_dict().keys() == plain.state_dict().keys()


def test_a_copy_of_a_checkpointed_network_is_one_of_its_own(generator):
    network = make("resnet")
    checkpoint_blocks(network)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    x = torch.randn(1, 2, 4, 8, 8, generator=generator)
    assert other(x).eq(0).all()
    assert network(x).ne(0).any()


def test_a_network_without_blocks_has_none_to_checkpoint():
    with pytest.raises(ValueError, match=r"`trainer.checkpoint_blocks`: Sequential holds no blocks"):
        checkpoint_blocks(nn.Sequential(nn.Linear(1, 1)))


def test_blocks_and_parts():
    assert [type(block).__name__ for block in blocks(make("csunet"))] == ["CSBlock"] * 3
    assert [name for name, _ in named_parts(make("csresnet"))] == ["stem", "blocks.0", "blocks.1", "blocks.2", "head"]


@each
def test_norms_and_spectra_stay_in_full_precision(name, generator):
    network = make(name)
    keep_full_precision(network)
    seen = set()
    for module in network.modules():
        if isinstance(module, FULL_PRECISION):
            module.register_forward_hook(lambda m, inputs, y: seen.add((type(m).__name__, y.dtype)))
    x = torch.randn(1, 2, 4, 8, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        network(x).float().square().mean().backward()
    assert seen
    assert {dtype for _, dtype in seen} == {torch.float32}
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_the_outputs_of_a_norm_in_mixed_precision_are_those_of_float32(generator):
    """A null vector (t, t) has q = 0, which half precision does not see: t² − t² of rounded numbers, times ε."""
    algebra = CliffordAlgebra((1, -1))
    network = nn.ModuleList([models.create("csresnet", algebra, 1, 1, hidden_channels=2, blocks=[1], kernel_size=3)])
    keep_full_precision(network)
    norm = network[0].blocks[0].norm1
    x = torch.zeros(1, 2, 4, 4, 4)
    x[:, :, 1], x[:, :, 2] = 1.0, torch.linspace(1, 1.01, 16).view(4, 4)
    expected = norm(x.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x.bfloat16()), expected)


def test_the_equivariance_error_in_mixed_precision_is_that_of_its_rounding(generator):
    network = make("csresnet")
    keep_full_precision(network)
    x = torch.randn(1, 2, 4, 16, 16, generator=generator)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert_equivariant(lambda x: network(x).float(), x, PLANE, tolerance=0.03)
        mixed = network(x).float()
    with torch.no_grad():
        full = network(x)
    assert 1e-3 < (mixed - full).norm() / full.norm() < 0.03
