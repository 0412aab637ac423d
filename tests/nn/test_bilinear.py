import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import ChannelProduct, bilinear

SIGNATURES = [(1,), (1, 1), (1, -1, -1)]


def make(signature, grid=(3,), batch=2, channels=2):
    algebra = CliffordAlgebra(signature)
    torch.manual_seed(0)
    layer = ChannelProduct(algebra, channels).double()
    shape = batch, channels, algebra.n_blades, *grid
    a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(channels, algebra.n_blades, algebra.n_blades, dtype=torch.float64, requires_grad=True)
    return layer, a, b, weight


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # forward mode's own
@pytest.mark.parametrize("grid", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_gradients(signature, grid):
    layer, *factors = make(signature, grid)
    product = lambda *given: bilinear.multiply(*given, layer.table)  # noqa: E731
    assert torch.autograd.gradcheck(product, factors, check_forward_ad=True)
    expected = bilinear.multiply_by_blades(*factors, layer.right_blades)
    torch.testing.assert_close(product(*factors), expected, rtol=1e-12, atol=1e-12)


def test_how_many_rows_are_done_at_a_time_changes_nothing(monkeypatch):
    layer, *factors = make((1, 1, 1), (4, 4), 3, 2)

    def result():
        y = bilinear.multiply(*factors, layer.table)
        return y, *torch.autograd.grad(y.square().sum(), factors)

    whole = result()
    monkeypatch.setattr(bilinear, "CACHED", 1)
    for one, other in zip(result(), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_maps_over_further_axes():
    layer, a, b, weight = make((1, 1))
    many = torch.stack([a, 2 * a])
    found = torch.vmap(lambda left: bilinear.multiply(left, b, weight, layer.table))(many)
    torch.testing.assert_close(found[1], 2 * bilinear.multiply(a, b, weight, layer.table))


def test_precision_is_that_of_the_widest():
    layer, a, b, weight = make((1, 1))
    assert bilinear.multiply(a.bfloat16(), b.bfloat16(), weight.float(), layer.table).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        found = bilinear.multiply(a.float(), b.float(), weight.float(), layer.table)
    torch.testing.assert_close(found, bilinear.multiply(a, b, weight, layer.table).float(), rtol=1e-5, atol=1e-5)


def test_no_samples_give_none():
    layer, a, b, weight = make((1, 1))
    assert bilinear.multiply(a[:0], b[:0], weight, layer.table).shape == a[:0].shape
