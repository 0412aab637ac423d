import copy

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.models import CSResNet
from cliffsteer.nn import CliffordSteerableConv, CompleteKernel
from cliffsteer.nn.kernels.basis import kernel_basis
from cliffsteer.nn.spectral import spectral_convolution
from cliffsteer.nn.spectral_plan import frequencies, index_dtype, plan_on
from cliffsteer.nn.strategy import circular_grid, faster, frequency_orbits, transform_length
from cliffsteer.testing import assert_equivariant

GRIDS = [  # signature, grid, kernel size
    ((1,), (6,), 5),
    ((-1,), (7,), 3),
    ((1, 1), (6, 6), 5),
    ((1, 1), (7, 7), 7),
    ((1, 1), (6, 9), 3),
    ((-1, 1), (6, 6), 5),
    ((1, 1, 1), (4, 4, 4), 3),
    ((1, 1, 1), (5, 6, 5), 5),
    ((1, -1, -1), (4, 5, 5), 3),
    ((-1, 1, -1), (4, 4, 4), 3),
    ((1, 1, 1, 1), (3, 3, 3, 3), 3),
    ((1, -1, -1, -1), (4, 3, 3, 3), 3),
]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def pair(signature, size, options=None, **conv):
    """The same convolution with either strategy."""
    algebra, options = CliffordAlgebra(signature), options or {}
    conv = {"kernel": "complete", "padding": "periodic", **conv}
    direct = CliffordSteerableConv(algebra, 2, 3, size, kernel_options=options, strategy="direct", **conv)
    torch.nn.init.normal_(direct.bias)
    spectral = CliffordSteerableConv(algebra, 2, 3, size, kernel_options=options, strategy="spectral", **conv)
    spectral.load_state_dict(direct.state_dict())
    return algebra, direct, spectral


def assert_same(direct, spectral, algebra, grid, dtype=torch.float64):
    """Outputs and the gradients of input and parameters agree to rounding."""
    x = torch.randn(2, 2, algebra.n_blades, *grid, dtype=dtype, requires_grad=True)
    results = []
    for conv in (direct.to(dtype), spectral.to(dtype)):
        y = conv(x)
        weight = torch.linspace(-1, 1, y.numel(), dtype=dtype).cos().view_as(y)
        assert y.is_contiguous()
        results.append([y, *torch.autograd.grad((y * weight).sum(), [x, *conv.parameters()])])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        assert (a - b).norm() <= TOLERANCE[dtype] * a.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("signature", "grid", "size"), GRIDS, ids=str)
def test_agrees_with_the_direct_convolution(signature, grid, size, dtype):
    algebra, direct, spectral = pair(signature, size)
    assert_same(direct, spectral, algebra, grid, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signature", [(1, 1), (1, -1), (1, 1, 1)], ids=str)
def test_implicit_kernel(signature, dtype):
    options = {"hidden_channels": 3, "layers": 2}
    algebra, direct, spectral = pair(signature, 5, options, kernel="implicit")
    assert_same(direct, spectral, algebra, (6,) * len(signature), dtype)


@pytest.mark.parametrize(
    ("signature", "options"),
    [
        ((1,), {"group": "SO"}),
        ((1, 1), {"group": "SO"}),
        ((1, 1, 1), {"group": "SO"}),
        ((1, -1, -1), {"group": "SO"}),
        ((1, -1), {"group": "orthochronous"}),
        ((-1, 1, -1), {"group": "orthochronous"}),
        ((1, -1, -1), {"group": "orthochronous", "causal": True}),
        ((1, 1), {"radial": "smooth"}),
    ],
    ids=str,
)
def test_other_groups_and_radial_functions(signature, options):
    algebra, direct, spectral = pair(signature, 3, options)
    assert_same(direct, spectral, algebra, (4, 5, 5)[-len(signature) :])


@pytest.mark.parametrize(
    "padding",
    ["zeros", "mirror", "symmetric", "valid", "xla_same", ("periodic", "zeros"), (("zeros", "mirror"), "symmetric")],
    ids=str,
)
@pytest.mark.parametrize(("size", "dilation", "stride"), [(3, 1, 1), (5, 1, 1), (3, 2, 1), (3, 1, 2)])
def test_boundaries_dilation_and_stride(padding, size, dilation, stride):
    if padding == "xla_same" and stride > 1:
        padding = "zeros"
    algebra, direct, spectral = pair((1, 1), size, padding=padding, dilation=dilation, stride=stride)
    assert_same(direct, spectral, algebra, (7, 7))
    assert_same(direct, spectral, algebra, (8, 11))


@pytest.mark.parametrize("padding", ["zeros", "mirror"])
def test_boundaries_in_spacetime(padding):
    algebra, direct, spectral = pair((1, -1, -1), 3, padding=padding)
    assert_same(direct, spectral, algebra, (4, 5, 5))


def test_a_kernel_larger_than_the_grid_wraps_around():
    algebra = CliffordAlgebra((1, 1))
    kernel = CompleteKernel(algebra, 1, 2, 9).double()
    x = torch.randn(1, 1, 4, 4, 5, dtype=torch.float64)
    values = kernel().view(2, 4, 1, 4, 9, 9)
    expected = torch.zeros(1, 2, 4, 4, 5, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            shifted = x.roll((4 - i, 4 - j), (3, 4))
            expected += torch.einsum("ojik,bikxy->bojxy", values[..., i, j].permute(0, 1, 2, 3), shifted)
    conv = CliffordSteerableConv(algebra, 1, 2, 9, kernel=kernel, padding="periodic", strategy="spectral").double()
    assert torch.allclose(conv(x), expected, atol=1e-11)


def test_equivariance_on_the_lattice():
    algebra, _, spectral = pair((1, -1, -1), 5)
    x = torch.randn(1, 2, 8, 5, 6, 6, dtype=torch.float64)
    assert_equivariant(spectral.double(), x, algebra, tolerance=1e-13)


def test_the_gradient_is_that_of_finite_differences():
    algebra = CliffordAlgebra((1, -1))
    x = torch.randn(1, 1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    radial = torch.randn(8, kernel_basis(algebra, 3).n_orbits, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, r: spectral_convolution(x, r, algebra, "O", 3), (x, radial))


def test_only_the_gradients_asked_for():
    spectral = pair((1, 1), 3)[2]
    x = torch.randn(1, 2, 4, 5, 5, requires_grad=True)
    spectral.requires_grad_(False)
    spectral(x).sum().backward()
    assert x.grad is not None
    spectral.requires_grad_(True)
    spectral(x.detach()).sum().backward()
    assert all(p.grad is not None for p in spectral.parameters())


@pytest.mark.parametrize(("signature", "grid", "size"), GRIDS, ids=str)
def test_every_frequency_is_folded_once(signature, grid, size):
    algebra = CliffordAlgebra(signature)
    plan = plan_on(algebra, "O", size, 1, grid, torch.float64, torch.device("cpu"))
    numbers = algebra.n_blades * len(frequencies(grid)) * 2
    assert torch.equal(plan.rows.flatten().sort().values, torch.arange(numbers))
    assert torch.equal(plan.back[plan.rows.flatten()], torch.arange(numbers))
    assert plan.n_orbits == frequency_orbits(algebra, grid)
    assert float(plan.weights.sum()) == pytest.approx(1)


def test_the_group_shrinks_with_the_grid():
    space = CliffordAlgebra((1, 1, 1))
    assert frequency_orbits(space, (8, 8, 8)) == 35  # a >= b >= c in 0..4
    assert frequency_orbits(space, (8, 8, 6)) == 15 * 4
    assert frequency_orbits(CliffordAlgebra((1, -1, -1)), (8, 8, 8)) == 5 * 15


def test_custom_operators_are_sound():
    algebra = CliffordAlgebra((1, 1))
    x = torch.randn(2, 1, 4, 4, 5, requires_grad=True)
    radial = torch.randn(8, kernel_basis(algebra, 3).n_orbits, 3, 1, requires_grad=True)
    torch.library.opcheck(
        torch.ops.cliffsteer.spectral_convolution.default,
        (x, radial, [1, 1], "O", 3, 1),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("strategy", ["direct", "spectral", "auto"])
def test_compiles_in_one_graph_and_exports(strategy):
    algebra = CliffordAlgebra((1, 1))
    conv = CliffordSteerableConv(algebra, 2, 2, 3, kernel="complete", padding="zeros", strategy=strategy)
    x = torch.randn(2, 2, 4, 6, 6, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    results = []
    for run in (conv, compiled):
        y = run(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    conv.eval()
    with torch.no_grad():
        exported = torch.export.export(conv, (x.detach(),)).module()
        assert torch.allclose(exported(x.detach()), conv(x), atol=1e-5)


def test_half_precision_is_computed_in_single():
    spectral = pair((1, 1), 3)[2]
    x = torch.randn(1, 2, 4, 6, 6)
    expected = spectral(x)
    with torch.autocast("cpu", torch.bfloat16):
        under = spectral(x)
    assert under.dtype == torch.float32
    assert (under - expected).norm() < 0.02 * expected.norm()
    low = spectral.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert (low - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("strategy", ["direct", "spectral"])
def test_the_kernel_is_kept_in_evaluation_only_while_it_is_true(strategy):
    algebra = CliffordAlgebra((1, 1))
    conv = CliffordSteerableConv(algebra, 2, 2, 3, kernel="complete", padding="periodic", strategy=strategy)
    conv.requires_grad_(False)
    kernel, other = conv.kernel, CliffordSteerableConv(algebra, 2, 2, 3, kernel="complete")
    name = "forward" if strategy == "direct" else "radial"
    made = []
    original = getattr(kernel, name)
    setattr(kernel, name, lambda: made.append(1) or original())
    x = torch.randn(1, 2, 4, 5, 5)

    def fresh():
        """Whether the convolution made its kernel, and that its result is right either way."""
        before = len(made)
        y = conv(x)
        count = len(made) - before
        again = copy.deepcopy(conv).train()
        assert torch.allclose(y, again(x).to(y.dtype), atol=1e-6)
        return count == 1

    keys = set(conv.state_dict())
    assert fresh()
    conv.eval()
    assert fresh()  # with gradients it is always made
    with torch.no_grad():
        assert fresh()
        assert not fresh()
        kernel.weight.mul_(2)
        assert fresh()
        assert not fresh()
        conv.load_state_dict(other.state_dict())
        assert fresh()
        kernel.weight.data = kernel.weight.data * 3
        assert fresh()
        conv.train().eval()
        assert fresh()
        assert not fresh()
        conv.double()
        x = x.double()
        assert fresh()
        assert copy.deepcopy(conv)._remembered is None
    assert set(conv.state_dict()) == keys


def test_indices_are_as_wide_as_the_batch_needs():
    assert index_dtype(2**31 - 1) == torch.int32
    assert index_dtype(2**31) == torch.int64
    plan = plan_on(CliffordAlgebra((1, 1)), "O", 3, 1, (4, 4), torch.float32, torch.device("cpu"))
    assert plan.indices(2)[0].dtype == torch.int32


@pytest.mark.parametrize("strategy", ["direct", "spectral"])
def test_an_empty_batch_gives_an_empty_field_and_no_gradient(strategy):
    conv = pair((1, 1), 3)[1 + (strategy == "spectral")]
    x = torch.zeros(0, 2, 4, 6, 6, requires_grad=True)
    y = conv(x)
    assert y.shape == (0, 3, 4, 6, 6)
    gradients = torch.autograd.grad(y.sum(), [x, *conv.parameters()])
    assert gradients[0].shape == x.shape
    assert not any(g.any() for g in gradients)


def test_evaluation_in_inference_mode():
    _, direct, spectral = pair((1, 1), 3)
    x = torch.randn(1, 2, 4, 6, 6)
    with torch.inference_mode():
        a, b = direct.eval()(x), spectral.eval()(x)
        assert torch.allclose(b, spectral(x))
    assert torch.allclose(a, b, atol=1e-5)
    assert spectral(x.requires_grad_()).requires_grad


def test_auto_takes_the_faster_one():
    plane, space = CliffordAlgebra((1, 1)), CliffordAlgebra((1, 1, 1))
    assert faster(plane, "O", 7, 10, 8, (48, 48), 64**2, (64, 64)) == "spectral"
    assert faster(space, "O", 7, 10, 1, (12, 12), 32**3, (32, 32, 32)) == "spectral"
    assert faster(plane, "O", 3, 3, 8, (8, 8), 64**2, (64, 64)) == "direct"
    assert faster(plane, "O", 7, 10, 1, (2, 2), 8**2, (8, 8)) == "direct"
    assert faster(plane, "O", 1, 1, 8, (48, 48), 64**2, (64, 64)) == "direct"
    conv = CliffordSteerableConv(plane, 8, 8, 9, kernel="complete", padding="periodic")
    assert conv.strategy_for(torch.empty(8, 8, 4, 64, 64)) == "spectral"
    assert conv.strategy_for(torch.empty(1, 8, 4, 9, 9)) == "direct"
    assert conv.strategy_for(torch.empty(8, 8, 4, 64, 64, dtype=torch.bfloat16)) == "direct"


def test_padding_to_a_circular_grid():
    assert [transform_length(n) for n in (1, 11, 67, 71)] == [1, 12, 70, 72]
    zeros = circular_grid((1, 1), (64, 64), 6, (("zeros", "zeros"),) * 2)
    assert zeros.lengths == (70, 70)
    assert zeros.starts == (0, 0)
    mixed = circular_grid((1, 1), (64, 64), 6, (("zeros", "zeros"), ("mirror", "zeros")))
    assert mixed.lengths == (70, 70)
    assert mixed.starts == (0, 3)


def test_network_with_either_strategy():
    algebra = CliffordAlgebra((1, 1))
    networks = [
        CSResNet(algebra, 1, 1, hidden_channels=3, blocks=(1,), kernel_size=5, padding="periodic", strategy=strategy)
        for strategy in ("direct", "spectral")
    ]
    networks[1].load_state_dict(networks[0].state_dict())
    x = torch.randn(2, 1, 4, 8, 8)
    assert torch.allclose(networks[0](x), networks[1](x), atol=1e-5)


def test_errors():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"`strategy` \(='fourier'\) must be one of 'auto', 'direct', 'spectral'"):
        CliffordSteerableConv(algebra, 1, 1, 3, strategy="fourier")
    with pytest.raises(
        ValueError, match=r"`strategy` \(='spectral'\) needs a kernel of odd size made of radial values"
    ):
        CliffordSteerableConv(algebra, 1, 1, 4, kernel_options={"allow_even": True}, strategy="spectral")
    with pytest.raises(ValueError, match="other than 'xla_same' where `stride` is above 1"):
        CliffordSteerableConv(algebra, 1, 1, 3, stride=2, padding="xla_same", strategy="spectral")
    valid = CliffordSteerableConv(algebra, 1, 1, 7, padding="valid", strategy="spectral")
    with pytest.raises(RuntimeError, match=r"the grid \(5, 9\) is smaller than the kernel"):
        valid(torch.zeros(1, 1, 4, 5, 9))
