import itertools

import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.nn import GroupConv, GroupSpectralConv, LiftingConv, ProjectionConv, RegularNorm
from cliffsteer.nn.group_conv import pad_regular, regular_norm
from cliffsteer.nn.lattice_group import lattice_group
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

PLANE, SPACETIME = CliffordAlgebra((1, 1)), CliffordAlgebra((1, -1, -1))
ORDERS = {
    ((1,), "O"): 2,
    ((1, 1), "O"): 8,
    ((1, 1), "SO"): 4,
    ((1, -1), "O"): 4,
    ((1, 1, 1), "O"): 48,
    ((1, 1, 1), "SO"): 24,
    ((1, -1, -1), "O"): 16,
    ((1, -1, -1), "orthochronous"): 8,
}
ALGEBRAS = [CliffordAlgebra(s) for s in ((1,), (1, 1), (1, -1, -1))]


def act(algebra, group, g, x):
    """(Rf)(x, g) = f(R⁻¹x, R⁻¹g) on (batch, channel · element, *grid), by matrices."""
    matrices = [h.matrix for h in group.elements]
    source = [next(i for i, m in enumerate(matrices) if torch.equal(m, g.matrix.T @ h)) for h in matrices]
    parts = g.move(x).unflatten(1, (-1, len(group)))
    return parts[:, :, source].flatten(1, 2)


def errors(layer, algebra, name, x, into, out):
    """Errors of a layer under all elements of its group, given the actions on input and output."""
    group = lattice_group(algebra, name)
    with torch.no_grad():
        y = layer(x)
        return [float((layer(into(group, g, x)) - out(group, g, y)).norm() / y.norm()) for g in group.elements]


def regular(algebra):
    return lambda group, g, x: act(algebra, group, g, x)


def blades(algebra):
    return lambda group, g, x: g.act(algebra, x.unflatten(1, (-1, algebra.n_blades))).flatten(1, 2)


def made(kind, *arguments, **options):
    layer = kind(*arguments, **options).double()
    for bias in [p for name, p in layer.named_parameters() if name == "bias"]:
        torch.nn.init.normal_(bias)
    return layer


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("signature", "name"), ORDERS, ids=str)
def test_the_group_is_a_group(signature, name):
    group = lattice_group(CliffordAlgebra(signature), name)
    size = len(group)
    assert size == ORDERS[signature, name]
    matrices = torch.stack([g.matrix for g in group.elements])
    assert torch.equal(matrices[group.quotients], torch.einsum("gji,hjk->ghik", matrices, matrices))
    assert torch.equal(group.quotients.diagonal(), torch.zeros(size, dtype=torch.int64))
    assert torch.equal(group.quotients.sort(1).values, torch.arange(size).expand(size, size))
    for axis, mirror in enumerate(group.mirrors):
        turned = matrices.clone()
        turned[:, axis] *= -1
        inside = any(torch.equal(turned[0], m) for m in matrices)
        assert torch.equal(matrices[mirror], turned if inside else matrices)


@pytest.mark.parametrize("padding", ["periodic", "zeros", "mirror", "conductor", "symmetric"])
@pytest.mark.parametrize("algebra", ALGEBRAS, ids=str)
def test_layers_are_equivariant(algebra, padding):
    size, cells = len(lattice_group(algebra)), [4] * algebra.dim
    actions = {"lifted": regular(algebra), "multivectors": blades(algebra)}
    cases = [
        (LiftingConv, 2 * algebra.n_blades, "multivectors", "lifted"),
        (GroupConv, 2 * size, "lifted", "lifted"),
        (ProjectionConv, 2 * size, "lifted", "multivectors"),
    ]
    for kind, channels, into, out in cases:
        layer = made(kind, algebra, 2, 1, 3, padding=padding)
        found = errors(layer, algebra, "O", noise(1, channels, *cells), actions[into], actions[out])
        assert max(found) < 1e-12, (kind, found)


def test_layers_are_equivariant_in_space():
    algebra = CliffordAlgebra((1, 1, 1))
    layer = made(GroupConv, algebra, 1, 1, 3, padding="mirror")
    assert max(errors(layer, algebra, "O", noise(1, 48, 4, 4, 4), regular(algebra), regular(algebra))) < 1e-12


@pytest.mark.parametrize("padding", ["periodic", "mirror", "conductor"])
@pytest.mark.parametrize(("algebra", "name"), [(PLANE, "SO"), (SPACETIME, "orthochronous")], ids=str)
def test_smaller_groups_keep_their_own_symmetries_and_no_others(algebra, name, padding):
    lift, back = (made(kind, algebra, 1, 1, 3, name, padding) for kind in (LiftingConv, ProjectionConv))
    mix = made(GroupConv, algebra, 1, 1, 3, name, padding)

    def network(x):
        return back(mix(lift(x.flatten(1, 2)).tanh()).tanh()).unflatten(1, (-1, algebra.n_blades))

    x = noise(1, 1, algebra.n_blades, *[4] * algebra.dim)
    elements = lattice_group(algebra, name).elements
    assert_equivariant(network, x, algebra, group=elements, tolerance=1e-12)
    others = [g for g in lattice_symmetries(algebra) if g not in elements]
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(network, x, algebra, group=others, tolerance=1e-3)


@pytest.mark.parametrize("algebra", ALGEBRAS, ids=str)
@pytest.mark.parametrize("n", [5, 6])
def test_spectral_layers_are_equivariant_on_even_and_odd_grids(algebra, n):
    layer = made(GroupSpectralConv, algebra, 1, 2, 2)
    x = noise(2, len(lattice_group(algebra)), *[n] * algebra.dim)
    assert max(errors(layer, algebra, "O", x, regular(algebra), regular(algebra))) < 1e-12


def test_spectral_layers_keep_the_lowest_frequencies_as_their_equation_says():
    """ŷ(k, g) = Σ_h Ŵ(g⁻¹h, g⁻¹k) f̂(k, h), frequency by frequency."""
    layer, group = made(GroupSpectralConv, PLANE, 1, 1, 1), lattice_group(PLANE)
    x = noise(1, 8, 5, 6)
    y, f = torch.fft.fftn(layer(x), dim=(2, 3))[0], torch.fft.fftn(x, dim=(2, 3))[0]
    weight = torch.fft.fftn(layer.weight[0, 0], dim=(1, 2)) / 3
    for k in itertools.product(range(-2, 3), range(-2, 4)):
        expected = torch.zeros(8, dtype=torch.complex128)
        if max(map(abs, k)) <= 1:
            for i, g in enumerate(group.elements):
                back = (g.matrix.T @ torch.tensor(k, dtype=torch.float64)).long().tolist()
                expected[i] = (weight[group.quotients[i], back[0], back[1]] * f[:, k[0], k[1]]).sum()
        assert torch.allclose(y[:, k[0], k[1]], expected, atol=1e-10)


def test_spectral_layers_are_of_any_resolution():
    """Twice as many cells of the same smooth field: the same output where the grids meet."""
    layer = made(GroupSpectralConv, PLANE, 1, 1, 2)
    angle = torch.arange(16, dtype=torch.float64) / 16 * 2 * torch.pi
    x = (angle.view(-1, 1) + 2 * angle + torch.arange(8).view(1, 8, 1, 1)).cos()
    assert torch.allclose(layer(x)[..., ::2, ::2], layer(x[..., ::2, ::2]), atol=1e-12)


def test_a_mirror_moves_the_elements_behind_the_wall():
    group = lattice_group(PLANE)
    x = noise(1, 16, 4, 5)
    wide = pad_regular(x, (1, 2), [("mirror", "zeros"), ("periodic", "periodic")], group.mirrors)
    assert wide.shape == (1, 16, 7, 8)
    mirror = next(g for g in group.elements if g.axes == (0, 1) and g.signs == (-1, 1))
    reflected = act(PLANE, group, mirror, x)
    assert torch.equal(wide[:, :, 0, 1:6], reflected[:, :, -1])
    assert not wide[:, :, 5:].any()
    assert torch.equal(wide[:, :, 1:5, 1:6], x)
    minus = pad_regular(x, (1, 1), [("conductor", "zeros"), ("zeros", "zeros")], group.mirrors)
    assert torch.equal(minus[:, :, 0, 1:6], -reflected[:, :, -1])


def test_a_grid_decides_the_padding():
    grid = Grid((4, 4), 1.0, (("slip", "open"), "periodic"))
    assert GroupConv(PLANE, 1, 1, 3, padding=grid).padding.modes == (("mirror", "zeros"), ("periodic", "periodic"))


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (LiftingConv(PLANE, 16, 16, 3, padding="periodic"), 64),
        (GroupConv(PLANE, 16, 16, 3, padding="periodic"), 128),
        (ProjectionConv(PLANE, 16, 32, 3, padding="periodic"), 128),
        (GroupSpectralConv(PLANE, 16, 16, 7), 128),
    ],
    ids=["lifting", "group", "projection", "spectral"],
)
def test_output_keeps_the_scale_of_the_input(layer, channels):
    assert 0.8 < float(layer(torch.randn(2, channels, 15, 15)).detach().std()) < 1.25


def test_the_norm_is_one_magnitude_and_a_scale_for_each_channel():
    norm = RegularNorm(2)
    x = 3 + 5 * torch.randn(2, 16, 6, 6)
    y = norm(x)
    assert torch.allclose(y.flatten(1).mean(1), torch.zeros(2), atol=1e-5)
    assert torch.allclose(y.flatten(1).std(1, correction=0), torch.ones(2), atol=1e-4)
    assert [p.shape for p in norm.parameters()] == [(2,), (2,)]
    assert isinstance(regular_norm("none", 2), torch.nn.Identity)
    with pytest.raises(ValueError, match=r"`norm` \(='batch'\) must be 'layer' or 'none'"):
        regular_norm("batch", 2)


@pytest.mark.parametrize(
    "layer", [GroupConv(PLANE, 1, 1, 3), GroupSpectralConv(PLANE, 1, 1, 1)], ids=["space", "waves"]
)
def test_an_empty_batch_passes(layer):
    assert layer(torch.zeros(0, 8, 5, 5)).shape == (0, 8, 5, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupConv(PLANE, 1, 1, 4), r"`kernel_size` \(=4\) must be odd"),
        (lambda: GroupConv(PLANE, 0, 1, 3), r"`in_channels` \(=0\) must be at least 1"),
        (lambda: GroupConv(PLANE, 1, 1, 3, "D4"), r"`group` \(='D4'\) must be one of 'O', 'SO', 'orthochronous'"),
        (lambda: GroupConv(PLANE, 1, 1, 3, "orthochronous"), r"needs one axis of its own sign, time"),
        (lambda: GroupConv(PLANE, 1, 1, 3, padding="valid"), r"`padding` \(='valid'\) must be one of 'zeros'"),
        (lambda: GroupConv((1, 1), 1, 1, 3), r"`algebra` \(=\(1, 1\)\) must be a CliffordAlgebra"),
        (lambda: GroupSpectralConv(PLANE, 1, 1, 0), r"`modes` \(=0\) must be at least 1"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_small_grids_are_refused():
    with pytest.raises(RuntimeError, match=r"the grid \(4, 8\), but 2 modes need at least 5 cells on each axis"):
        GroupSpectralConv(PLANE, 1, 1, 2)(torch.zeros(1, 8, 4, 8))
    with pytest.raises(RuntimeError, match=r"the grid \(4, 8\) is smaller than the kernel, which spans 5 cells"):
        GroupConv(PLANE, 1, 1, 5)(torch.zeros(1, 8, 4, 8))
