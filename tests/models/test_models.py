import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.models import available, create, fit_to_grid
from cliffsteer.models.plain import PlainConv
from cliffsteer.nn.kernels import KERNELS
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

WIDTH = {"hidden_channels": 3, "blocks": (1,)}
SMALL = WIDTH | {"kernel_size": 3}
KERNEL = {"kernel_options": {"hidden_channels": 3, "layers": 2}}
SIGNATURES = [(1,), (1, 1), (1, 1, 1), (1, -1, -1), (1, -1, -1, -1)]
UP_TO_3 = SIGNATURES[:-1]
OPTIONS = {
    "csfno": WIDTH | {"modes": 1},
    "fno": WIDTH | {"modes": 1},
    "dilated_resnet": SMALL | {"dilations": (1, 2)},
    "steerable_resnet": SMALL | {"hidden_channels": 1},
    "gfno": WIDTH | {"hidden_channels": 1, "modes": 1},
}
STEERABLE = {"csresnet": {"padding": "periodic"}, "csunet": {"padding": "periodic"}, "csfno": {"modes": 1}}


@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
@pytest.mark.parametrize("name", available())
def test_shapes_and_gradients(name, signature):
    algebra = CliffordAlgebra(signature)
    if name == "fno":
        pytest.importorskip("neuralop")
    network = create(name, algebra, 3, 2, **OPTIONS.get(name, SMALL))
    x = torch.randn(2, 3, algebra.n_blades, *[4, 5, 4, 4][: algebra.dim])
    y = network(x)
    assert y.shape == (2, 2, *x.shape[2:])
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in network.named_parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer"},
        {"norm": "group"},
        {"norm": "reference"},
        {"norm": "none"},
        {"pointwise": "kernel"},
        {"nonlinearity": "product", "dilations": (2, 1)},
    ],
    ids=str,
)
@pytest.mark.parametrize("signature", UP_TO_3, ids=str)
def test_csresnet_is_equivariant(signature, options):
    algebra = CliffordAlgebra(signature)
    network = create("csresnet", algebra, 2, 1, **SMALL, **KERNEL, padding="periodic", **options).double()
    x = torch.randn(1, 2, algebra.n_blades, *[5] * algebra.dim, dtype=torch.float64)
    assert_equivariant(network, x, algebra, tolerance=1e-12)


def test_dilations_are_taken_in_turn():
    network = create("csresnet", CliffordAlgebra((1, 1)), 1, 1, hidden_channels=2, blocks=(1, 1), dilations=(1, 2, 4))
    assert [(block.conv1.dilation, block.conv2.dilation) for block in network.blocks] == [(1, 2), (4, 1)]
    with pytest.raises(ValueError, match=r"`dilations` \(=\(0,\)\) must hold positive whole numbers"):
        create("csresnet", CliffordAlgebra((1, 1)), 1, 1, dilations=(0,))


def test_csfno_without_nonlinearity_is_linear():
    algebra = CliffordAlgebra((1, 1, 1))
    network = create("csfno", algebra, 1, 1, **WIDTH, modes=1, norm="none", nonlinearity="none").double()
    x, y = torch.randn(2, 1, 1, 8, 4, 4, 4, dtype=torch.float64)
    biases = network(torch.zeros_like(x))
    torch.testing.assert_close(network(x + 2 * y) - biases, network(x) + 2 * network(y) - 3 * biases)
    assert (network(x) - biases).norm() > 0.01


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", STEERABLE)
@pytest.mark.parametrize("signature", [(1, 1), (1, -1, -1)], ids=str)
def test_steerable_networks_are_equivariant_with_every_kernel_and_products(signature, name, kernel):
    algebra = CliffordAlgebra(signature)
    options = {"kernel": kernel, "nonlinearity": "product"} | STEERABLE[name]
    network = create(name, algebra, 2, 1, **SMALL, **options).double()
    x = torch.randn(1, 2, algebra.n_blades, *[4] * algebra.dim, dtype=torch.float64)
    assert_equivariant(network, x, algebra, tolerance=1e-12)
    assert any(getattr(module, "kernel", None) is not None for module in network.modules())


@pytest.mark.parametrize("signature", [(1, 1), (1, -1)], ids=str)
def test_csresnet_takes_global_kernels(signature):
    """A kernel larger than the grid: every point sees every other, and the network stays equivariant and trainable."""
    algebra = CliffordAlgebra(signature)
    options = {"hidden_channels": 3, "blocks": (1,), "kernel_size": 17, "strategy": "spectral", "padding": "periodic"}
    smooth = {"kernel": "complete", "kernel_options": {"radial": "smooth", "n_radial": 4}}
    network = create("csresnet", algebra, 1, 1, **options, **smooth).double()
    x = torch.randn(1, 1, 4, 16, 16, dtype=torch.float64)
    assert_equivariant(network, x, algebra, tolerance=1e-12)
    x.requires_grad_()
    network(x)[0, 0, 0, 0, 0].backward()
    assert (x.grad.abs().amax((0, 1, 2)) > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("padding", ["periodic", "zeros", "mirror"])
@pytest.mark.parametrize("signature", UP_TO_3, ids=str)
def test_csunet_is_equivariant_to_rounding_on_all_scales(signature, padding):
    algebra = CliffordAlgebra(signature)
    options = {"hidden_channels": 2, "blocks": (1, 1, 1), "kernel_size": 3, "padding": padding, "blur": 2}
    network = create("csunet", algebra, 2, 1, **options)
    x = torch.randn(1, 2, algebra.n_blades, *[12] * algebra.dim, dtype=torch.float64)
    assert_equivariant(network.double(), x, algebra, tolerance=1e-12)


@pytest.mark.parametrize("signature", UP_TO_3, ids=str)
def test_csfno_is_equivariant_and_of_any_resolution(signature):
    algebra = CliffordAlgebra(signature)
    network = create("csfno", algebra, 2, 1, **WIDTH, modes=1).double()
    for size in (4, 5):
        x = torch.randn(1, 2, algebra.n_blades, *[size] * algebra.dim, dtype=torch.float64)
        assert_equivariant(network, x, algebra, tolerance=1e-12)


@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1)], ids=str)
def test_csunet_commutes_with_shifts_by_the_coarsest_cell_and_nearly_with_others_after_a_blur(signature):
    algebra = CliffordAlgebra(signature)
    x = torch.randn(2, 2, algebra.n_blades, *[12] * algebra.dim, dtype=torch.float64)
    errors = {}
    for blur in (0, 2):
        torch.manual_seed(0)
        options = {"hidden_channels": 4, "blocks": (1, 1, 1), "kernel_size": 3, "padding": "periodic", "blur": blur}
        network = create("csunet", algebra, 2, 1, **options).double()
        with torch.no_grad():
            y = network(x)
            for cells in (1, 4):
                errors[blur, cells] = (network(x.roll(cells, 3)) - y.roll(cells, 3)).norm() / y.norm()
        assert errors[blur, 4] < 1e-13
    assert errors[0, 1] > 0.02
    assert errors[2, 1] < errors[0, 1] / 4


def test_csfno_takes_the_extent_of_the_grid():
    """A box of 8 × 16 unit cells: q = (k₁/8)² + (k₂/16)², so that (1, 0) and (0, 2) are alike, and (0, 1) is not."""
    options = fit_to_grid({"extent": "grid", "modes": 2}, Grid((8, 16)))
    network = create("csfno", CliffordAlgebra((1, 1)), 1, 1, **WIDTH, **options)
    assert network.blocks[0].spectral.weight.shape[1] == 8
    with pytest.raises(ValueError, match=r"`extent` \(='grid'\) needs a grid of one unit, this one is in s, m"):
        fit_to_grid({"extent": "grid"}, Grid((8, 8), unit=("s", "m")))
    with pytest.raises(ValueError, match=r"`extent` \(='grid'\) must hold lengths"):
        create("csfno", CliffordAlgebra((1, 1)), 1, 1, extent="grid")


def test_csfno_says_that_walls_are_not_periodic_and_can_be_padded(caplog):
    walls, options = Grid((8, 8), 1.0, "conductor"), {"extent": "grid", "modes": 2}
    for _ in range(2):
        fit_to_grid(options, walls)
    fit_to_grid(options, Grid((8, 8)))
    fit_to_grid(options | {"domain_padding": 0.25}, walls)
    assert len(caplog.messages) == 1
    assert "take the domain as periodic, but its sides are conductor, conductor" in caplog.text
    network = create("csfno", CliffordAlgebra((1, 1)), 2, 1, **WIDTH, modes=2, domain_padding=0.25).double()
    x = torch.randn(1, 2, 4, 8, 8, dtype=torch.float64)
    assert_equivariant(network, x, CliffordAlgebra((1, 1)), tolerance=1e-12)
    assert not torch.allclose(network(x.roll(1, 3)), network(x).roll(1, 3))  # no longer that of a periodic domain


def test_csunet_wants_grids_that_can_be_halved():
    network = create("csunet", CliffordAlgebra((1, 1)), 1, 1, hidden_channels=2, blocks=(1, 1, 1), kernel_size=3)
    with pytest.raises(RuntimeError, match=r"the grid \(5, 5\) must have multiples of 2 cells"):
        network(torch.zeros(1, 1, 4, 10, 10))


def test_csresnet_is_equivariant_in_minkowski_spacetime():
    """Under a sixth of the 96 lattice symmetries of R^{1,3}; the layers are tested under all of them."""
    algebra = CliffordAlgebra((1, -1, -1, -1))
    network = create("csresnet", algebra, 1, 1, **SMALL, **KERNEL, padding="periodic").double()
    x = torch.randn(1, 1, 16, 4, 4, 4, 4, dtype=torch.float64)
    group = list(lattice_symmetries(algebra))[5::6]
    assert_equivariant(network, x, algebra, group=group, tolerance=1e-12)


def test_csresnet_keeps_the_scale_of_its_input():
    algebra = CliffordAlgebra((1, 1))
    network = create("csresnet", algebra, 4, 1, hidden_channels=16, blocks=(2, 2))
    y = network(torch.randn(2, 4, 4, 16, 16))
    assert 0.05 < float(y.detach().std()) < 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("csresnt", {}, r"`model` \(='csresnt'\) is unknown: did you mean 'csresnet'\?; available: csresnet, csunet"),
        ("resnet", {"width": 3}, r"model 'resnet' has no option 'width'.*; it has hidden_channels"),
        ("csresnet", {"hidden_chanels": 3}, r"no option 'hidden_chanels': did you mean 'hidden_channels'\?"),
        ("csresnet", {"kernel_size": 4}, r"`kernel_size` \(=4\) must be odd"),
        ("csresnet", {"pointwise": "conv"}, r"`pointwise` \(='conv'\) must be 'linear' or 'kernel'"),
        ("csresnet", {"blocks": ()}, r"`blocks` \(=\(\)\) must hold a positive whole number of blocks"),
        ("csresnet", {"blocks": 1}, r"`blocks` \(=1\) must hold a positive whole number"),
        ("resnet", {"blocks": 1}, r"`blocks` \(=1\) must hold a positive whole number"),
        ("resnet", {"blocks": (0,)}, r"`blocks` \(=\(0,\)\) must hold a positive whole number"),
        ("resnet", {"padding": "mirror"}, r"`padding` \(='mirror'\) mirrors a side, which turns vectors"),
        (
            "csresnet",
            {"kernel": "complete", "kernel_options": {"radia": "orbit"}},
            r"kernel 'complete' has no option 'radia': did you mean 'radial'\?; it has group, radial",
        ),
        ("csresnet", {"kernel_options": {"algebra": 1}}, "kernel 'implicit' has no option 'algebra'"),
        ("csresnet", {"algebra": 1}, "model 'csresnet' has no option 'algebra'"),
        ("csresnet", {"nonlinearity": "relu"}, r"`nonlinearity` \(='relu'\) must be 'gelu' or 'product'"),
        ("csfno", {"kernel_size": 4}, r"`kernel_size` \(=4\) must be odd"),
        ("csfno", {"kernel": "nonsense"}, r"`kernel` \(='nonsense'\) must be one of 'implicit', 'complete'"),
        ("csfno", {"kernel_options": {"foo": 1}}, "kernel 'complete' has no option 'foo'"),
        ("csfno", {"strategy": "bar"}, r"`strategy` \(='bar'\) must be one of 'auto'"),
        ("csfno", {"kernel": "implicit"}, r"`kernel` \(='implicit'\) does nothing with `kernel_size` \(=1\)"),
        ("csfno", {"kernel_options": {"group": "SO"}}, r"`kernel_options` \(={'group': 'SO'}\) does nothing with"),
        ("csfno", {"strategy": "direct"}, r"`strategy` \(='direct'\) does nothing with `kernel_size` \(=1\)"),
        ("csfno", {"domain_padding": 1}, r"`domain_padding` \(=1\) must be a share from 0 to below 1"),
        ("csunet", {"growth": 0.5}, r"`growth` \(=0.5\) must be at least 1"),
        ("csunet", {"padding": "valid"}, r"`padding` \(='valid'\) must be one of 'zeros'"),
        ("resnet", {"kernel_size": 4}, r"`kernel_size` \(=4\) must be odd"),
        ("resnet", {"norm": "batch"}, r"`norm` \(='batch'\) must be 'layer' or 'none'"),
        ("resnet", {"hidden_channels": 0}, r"`hidden_channels` \(=0\)"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, CliffordAlgebra((1, 1)), 1, 1, **options)


def test_plain_networks_pad_as_the_grid_asks_without_turning_components():
    grid = Grid((8, 8), 1.0, (("slip", "open"), "periodic"))
    network = create("resnet", CliffordAlgebra((1, 1)), 1, 1, hidden_channels=2, blocks=(1,), padding=grid)
    modes = {module.padding.modes for module in network.modules() if isinstance(module, PlainConv)}
    assert modes == {(("symmetric", "zeros"), ("periodic", "periodic"))}
