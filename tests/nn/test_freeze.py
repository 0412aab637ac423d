import copy
import io
import pickle

import pytest
import torch
from torch import nn

from cliffsteer import CliffordAlgebra
from cliffsteer.models import CSResNet
from cliffsteer.nn import CliffordSteerableConv, CliffordSteerableConvTranspose, Downsample, MVLinear, Upsample
from cliffsteer.nn.freeze import FrozenConv, FrozenLinear, FrozenSpectralConv, freeze
from cliffsteer.testing import assert_equivariant

SMALL = {"hidden_channels": 3, "layers": 2}
GRIDS = {
    (1,): (7,),
    (1, 1): (6, 7),
    (1, -1): (6, 6),
    (1, 1, 1): (5, 5, 5),
    (1, -1, -1): (6, 5, 5),
    (1, -1, -1, -1): (4, 3, 3, 3),
}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}
STRATEGIES = ["direct", "spectral"]


def convolution(signature, size=3, **options):
    options = {"kernel": "complete", "padding": "periodic", **options}
    conv = CliffordSteerableConv(CliffordAlgebra(signature), 2, 3, size, **options)
    torch.nn.init.normal_(conv.bias)
    return conv


def network(signature=(1, 1), kernel="complete", **options):
    kernel_options = SMALL if kernel == "implicit" else None
    options = {"hidden_channels": 2, "blocks": (1,), "kernel_size": 3, "padding": "periodic", **options}
    return CSResNet(CliffordAlgebra(signature), 2, 1, kernel=kernel, kernel_options=kernel_options, **options)


def field(signature, grid, batch=2, dtype=torch.float32):
    return torch.randn(batch, 2, 2 ** len(signature), *grid, dtype=dtype)


def assert_same(module, strategy, x, kind=None):
    """The frozen module computes the same, and has no parameter left that the original made its kernels from."""
    with torch.no_grad():
        frozen, expected = freeze(module, strategy, example=None if strategy == "direct" else x), module(x)
        y = frozen(x)
    assert kind is None or type(frozen) is kind
    assert y.shape == expected.shape
    assert (y - expected).norm() <= TOLERANCE[x.dtype] * expected.norm()
    return frozen


# ------------------------------------------------------------------------------------------------ the same result


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("signature", GRIDS, ids=str)
def test_every_signature(signature, strategy, dtype):
    conv = convolution(signature).to(dtype)
    frozen = assert_same(
        conv,
        strategy,
        field(signature, GRIDS[signature], dtype=dtype),
        {"direct": FrozenConv, "spectral": FrozenSpectralConv}[strategy],
    )
    assert not list(frozen.parameters())


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize(
    "padding",
    ["zeros", "mirror", "conductor", "symmetric", "valid", "xla_same", (("zeros", "mirror"), "periodic")],
    ids=str,
)
def test_every_padding_stride_and_dilation(padding, stride, dilation, strategy):
    conv = convolution((1, -1), padding=padding, stride=stride, dilation=dilation).double()
    assert_same(conv, strategy, field((1, -1), (7, 8), dtype=torch.float64))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("signature", "kernel", "options"),
    [
        ((1, 1), "implicit", SMALL),
        ((1, -1, -1), "implicit", SMALL),
        ((1, 1), "complete", {"group": "SO"}),
        ((1, 1, 1), "complete", {"group": "SO"}),
        ((1, -1), "complete", {"group": "orthochronous"}),
        ((-1, 1, -1), "complete", {"group": "orthochronous", "causal": True}),
    ],
    ids=str,
)
def test_every_kernel(signature, kernel, options, strategy):
    conv = convolution(signature, kernel=kernel, kernel_options=options).double()
    assert_same(conv, strategy, field(signature, (4, 5, 5)[-len(signature) :], dtype=torch.float64))


@pytest.mark.parametrize("per_grade", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_maps(per_grade, bias):
    linear = MVLinear(CliffordAlgebra((1, -1)), 2, 3, bias, per_grade).double()
    for grid in ((), (5,), (4, 5)):
        assert_same(linear, "direct", torch.randn(2, 2, 4, *grid, dtype=torch.float64), FrozenLinear)


def test_a_convolution_that_has_no_spectrum_or_is_pointwise_stays_direct():
    even = convolution((1, 1), 4, kernel="implicit", kernel_options={**SMALL, "allow_even": True}, padding="xla_same")
    x = field((1, 1), (6, 6))
    assert_same(even, "spectral", x, FrozenConv)
    assert_same(convolution((1, 1), 1), "spectral", x, FrozenConv)


def test_half_precision_is_computed_in_single():
    conv, x = convolution((1, 1), strategy="spectral"), field((1, 1), (6, 6))
    frozen = freeze(conv, "spectral", grid=(6, 6))
    y = frozen(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen(x), y)
        assert torch.equal(freeze(conv, "spectral", grid=(6, 6))(x), y)
        assert torch.equal(freeze(conv).kernel, freeze(conv.float()).kernel)
    low, expected = frozen(x.bfloat16()), conv.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert (low - expected).norm() < 0.02 * expected.norm()


# ------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("kernel", ["implicit", "complete"])
@pytest.mark.parametrize("strategy", [*STRATEGIES, "auto"])
def test_networks(kernel, strategy):
    net, x = network(kernel=kernel, pointwise="kernel"), field((1, 1), (6, 6))
    before = copy.deepcopy(net.state_dict())
    frozen = assert_same(net, strategy, x)
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any("kernel." in name for name, _ in frozen.named_parameters())
    assert net.training  # the original is what it was
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_auto_does_what_the_convolution_would_do():
    conv = CliffordSteerableConv(CliffordAlgebra((1, 1)), 8, 8, 9, kernel="complete", padding="periodic")
    assert type(freeze(conv, "auto", grid=(64, 64))) is FrozenSpectralConv
    assert type(freeze(conv, "auto", grid=(9, 9))) is FrozenConv
    conv.strategy = "direct"
    assert type(freeze(conv, "auto", grid=(64, 64))) is FrozenConv


def test_a_network_that_changes_its_grid_is_frozen_by_an_example():
    algebra = CliffordAlgebra((1, 1))
    net = nn.Sequential(
        convolution((1, 1), stride=2, padding="zeros"),
        CliffordSteerableConvTranspose(algebra, 3, 2, 3, kernel="complete"),
        Downsample(algebra),
        CliffordSteerableConv(algebra, 2, 1, 3, kernel="complete"),
    ).double()
    x = field((1, 1), (8, 12), dtype=torch.float64)
    frozen = assert_same(net, "spectral", x)
    assert [m.grid for m in frozen.modules() if type(m) is FrozenSpectralConv] == [(8, 12), (8, 12), (4, 6)]
    with pytest.raises(
        ValueError, match=r"`grid` \(=\(8, 12\)\) does not say .* since 0 changes the grid: give `example`"
    ):
        freeze(net, "spectral", grid=(8, 12))


@pytest.mark.parametrize("layer", [Downsample, Upsample, lambda a: CliffordSteerableConvTranspose(a, 3, 2, 3)])
def test_a_grid_is_refused_where_layers_change_it(layer):
    conv = convolution((1, 1))
    with pytest.raises(ValueError, match=r"since 1 changes the grid: give `example` instead, or take `strategy` 'dire"):
        freeze(nn.Sequential(conv, layer(conv.algebra)), "auto", grid=(8, 8))


@pytest.mark.parametrize("grid", [(16,), 16, (16.0, 16), (0, 16), "ab"], ids=str)
def test_a_grid_has_a_whole_number_of_cells_for_each_axis(grid):
    with pytest.raises(ValueError, match=r"`grid` \(=.*\) must "):
        freeze(convolution((1, 1)), "spectral", grid=grid)


def test_what_would_be_lost_is_refused():
    class Scaled(CliffordSteerableConv):
        def forward(self, x):
            return 2 * super().forward(x)

    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"cannot be frozen: 0 is a Scaled, and what that adds to Clifford"):
        freeze(nn.Sequential(Scaled(algebra, 1, 1, 3)))
    for layer in (convolution((1, 1)), MVLinear(algebra, 1, 1)):
        handle = layer.register_forward_hook(lambda *_: None)
        with pytest.raises(ValueError, match="cannot be frozen: it has hooks, which would be lost: remove them first"):
            freeze(layer)
        handle.remove()
        freeze(layer)
        layer.forward = lambda x: x
        with pytest.raises(ValueError, match="has a `forward` of its own"):
            freeze(layer)


def test_an_empty_batch_and_a_field_that_is_not_real():
    for frozen in (freeze(convolution((1, 1))), freeze(convolution((1, 1), stride=2), "spectral", grid=(5, 5))):
        x = torch.zeros(2, 2, 4, 5, 5)
        assert frozen(x[:0]).shape == (0, *frozen(x).shape[1:])
    with pytest.raises(RuntimeError, match=r"`x` has dtype torch\.complex64"):
        frozen(x.cfloat())


def test_shared_layers_stay_shared():
    conv = CliffordSteerableConv(CliffordAlgebra((1, 1)), 2, 2, 3, kernel="complete")
    frozen = freeze(nn.Sequential(conv, conv))
    assert frozen[0] is frozen[1]
    halved = nn.Sequential(conv, Downsample(conv.algebra), conv)
    x = field((1, 1), (8, 8))
    with pytest.raises(ValueError, match=r"uses 0 on several grids, \[\(4, 4\), \(8, 8\)\], but a spectrum is for one"):
        freeze(halved, "spectral", example=x)
    assert type(freeze(halved, "auto", example=x)[0]) is FrozenConv


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equivariance_and_gradients_of_the_input(strategy):
    net = network((1, -1), padding="mirror").double()
    frozen = freeze(net, strategy, grid=None if strategy == "direct" else (4, 4))
    x = field((1, -1), (4, 4), 1, torch.float64)
    assert_equivariant(frozen, x, CliffordAlgebra((1, -1)), tolerance=1e-12)
    x.requires_grad_()
    gradients = [torch.autograd.grad(run(x).square().sum(), x)[0] for run in (net, frozen)]
    assert torch.allclose(*gradients, rtol=1e-10)


# ------------------------------------------------------------------------------------- copies, states, compilers


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_copies_states_and_pickles(strategy, is_frozen):
    """What an evaluation keeps never enters a state, and all ways to take a network along lead to the same outputs."""

    def build():
        net = network(strategy=strategy)
        return freeze(net, strategy, grid=None if strategy == "direct" else (6, 6)) if is_frozen else net

    net, x = build(), field((1, 1), (6, 6))
    names = list(net.train().state_dict())
    assert list(net.eval().state_dict()) == names
    with torch.no_grad():
        y = net(x)
        assert list(net.state_dict()) == names
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        loaded = build().eval()
        assert not torch.allclose(loaded(x), y)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        for other in (loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(x), y)
            assert list(other.state_dict()) == names


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_compiles_in_one_graph(strategy):
    conv = convolution((1, 1), kernel_options={"group": "SO"})
    frozen = freeze(conv, strategy, grid=None if strategy == "direct" else (6, 6))
    compiled = torch.compile(frozen, fullgraph=True, backend="eager")
    for batch in (1, 2, 3):
        x = field((1, 1), (6, 6), batch)
        assert torch.allclose(compiled(x), conv(x), atol=1e-5)


def test_compiles_for_one_grid_after_another():
    """With "auto", where sizes decide what is done, and the compiler makes symbols of those that change."""
    conv = convolution((1, 1))
    compiled = torch.compile(conv, fullgraph=True, backend="eager")
    for grid in [(6, 6), (8, 8)]:
        x = field((1, 1), grid)
        assert torch.allclose(compiled(x), conv(x), atol=1e-5)


@pytest.mark.parametrize(
    ("which", "signature", "kernel"),
    [
        ("direct", (1, 1), "implicit"),
        ("direct", (1, 1, 1), "complete"),
        ("frozen", (1, 1), "implicit"),
        ("frozen", (1, 1, 1), "complete"),
    ],
    ids=str,
)
def test_networks_export_for_any_batch_and_grid(which, signature, kernel):
    net = network(signature, kernel, strategy="direct").eval()
    assert_exports(freeze(net) if which == "frozen" else net, net, signature)


@pytest.mark.parametrize(
    "options", [{"strategy": "auto", "padding": "zeros"}, {"stride": 2, "padding": "xla_same"}], ids=str
)
def test_convolutions_export_for_any_batch_and_grid(options):
    conv = convolution((1, 1), **options).eval()
    assert_exports(conv, conv, (1, 1))


def assert_exports(module, original, signature):
    grid = (6, 7, 8)[: len(signature)]
    sizes = dict.fromkeys((0, *range(3, 3 + len(grid))), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(module, (field(signature, grid),), dynamic_shapes=(sizes,))
        assert not [
            node for node in program.graph.nodes if "cliffsteer" in str(node.target)
        ]  # needs no operator of ours
        run = program.module()
        for batch, other in [(1, grid), (3, grid[::-1]), (2, (9, 5, 10)[: len(grid)])]:
            x = field(signature, other, batch)
            assert torch.allclose(run(x), original(x), atol=1e-5)


def test_a_frozen_spectrum_exports_for_any_batch():
    conv = convolution((1, 1), kernel_options={"group": "SO"})
    frozen, sizes = freeze(conv, "spectral", grid=(4, 5)), {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(frozen, (field((1, 1), (4, 5)),), dynamic_shapes=(sizes,))
    assert not [node for node in program.graph.nodes if "cliffsteer" in str(node.target)]
    x = field((1, 1), (4, 5), 3)
    assert torch.allclose(program.module()(x), conv(x), atol=1e-5)


# -------------------------------------------------------------------------------------------------------- errors


def test_errors():
    net, x = network(), field((1, 1), (6, 6))
    with pytest.raises(ValueError, match=r"`strategy` \(='fourier'\) must be one of 'auto', 'direct', 'spectral'"):
        freeze(net, "fourier")
    with pytest.raises(ValueError, match="need either `grid` or `example`"):
        freeze(net, "spectral")
    with pytest.raises(ValueError, match="need either `grid` or `example`"):
        freeze(net, "auto", grid=(6, 6), example=x)
    conditional = network(kernel="conditional")
    with pytest.raises(
        ValueError,
        match=r"`module` cannot be frozen: the kernel of blocks.0.conv1, a ConditionalKernel, depends on the input",
    ):
        freeze(conditional)
    spectral = freeze(net, "spectral", grid=(6, 6))
    with pytest.raises(
        RuntimeError, match=r"`x` has the grid \(6, 8\), but the kernel's spectrum was frozen for \(6, 6\)"
    ):
        spectral(field((1, 1), (6, 8)))
    with pytest.raises(RuntimeError, match=r"the grid \(2, 8\) is smaller than the kernel"):
        freeze(convolution((1, 1), padding="valid"), "spectral", grid=(2, 8))
    direct = freeze(convolution((1, 1), 7))
    with pytest.raises(RuntimeError, match=r"the grid \(3, 8\) is smaller than the kernel, which spans 7 cells"):
        direct(field((1, 1), (3, 8)))
    with pytest.raises(RuntimeError, match=r"expected 2 grid axes after \(batch, channel, blade\)"):
        direct(torch.zeros(1, 2, 4, 8))
    with pytest.raises(RuntimeError, match=r"FrozenConv expects \(batch, 2, 4, ...\)"):
        direct(torch.zeros(1, 3, 4, 8, 8))
