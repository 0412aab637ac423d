import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.functional import convolve, convolve_each, pad_axis
from cliffsteer.nn import CliffordSteerableConv, ImplicitKernel, Padding
from cliffsteer.nn.padding import padding_modes
from cliffsteer.testing import assert_equivariant

SIGNATURES = [(1,), (-1,), (1, 1), (1, -1), (1, 1, 1), (1, -1, -1), (-1, 1, -1), (1, -1, -1, -1)]
SMALL = {"hidden_channels": 3, "layers": 2}


def convolution(signature, size=3, **options):
    algebra = CliffordAlgebra(signature)
    conv = CliffordSteerableConv(algebra, 2, 3, size, kernel_options=SMALL, **options)
    torch.nn.init.normal_(conv.bias)
    return algebra, conv


@pytest.mark.parametrize("padding", ["periodic", "zeros", "mirror", "symmetric"])
@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_equivariance_on_the_lattice(signature, padding):
    algebra, conv = convolution(signature, padding=padding)
    x = torch.randn(1, 2, algebra.n_blades, *[4] * algebra.dim, dtype=torch.float64)
    assert_equivariant(conv.double(), x, algebra, tolerance=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equivariance_on_a_grid_that_is_not_cubic(dtype):
    algebra, conv = convolution((1, 1, 1), 5, padding="periodic")
    x = torch.randn(1, 2, 8, 6, 6, 8, dtype=dtype)
    assert_equivariant(conv.to(dtype), x, algebra)


def test_translation_equivariance():
    _, conv = convolution((1, -1), 5, padding="periodic")
    conv.double()
    x = torch.randn(1, 2, 4, 7, 9, dtype=torch.float64)
    shifted = conv(x.roll((2, -3), (3, 4)))
    assert torch.allclose(shifted, conv(x).roll((2, -3), (3, 4)), atol=1e-13)


@pytest.mark.parametrize(("size", "stride"), [(4, 1), (3, 2)])
def test_even_kernels_and_strides_break_it_and_the_helper_says_so(size, stride):
    algebra = CliffordAlgebra((1, 1))
    options = {**SMALL, "allow_even": True}
    conv = CliffordSteerableConv(
        algebra, 2, 3, size, kernel_options=options, stride=stride, padding="xla_same"
    ).double()
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(conv, torch.randn(1, 2, 4, 6, 6, dtype=torch.float64), algebra, tolerance=1e-3)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_convolve_with_a_kernel_for_each_sample(dim):
    x = torch.randn(2, 3, *[6] * dim, dtype=torch.float64)
    kernels = torch.randn(2, 4, 3, *[2] * dim, dtype=torch.float64)
    expected = torch.cat([convolve(a[None], k, 2, 2) for a, k in zip(x, kernels, strict=True)])
    assert torch.allclose(convolve_each(x, kernels, 2, 2), expected)
    assert torch.allclose(convolve(x.flatten(0, 1)[None], kernels.flatten(0, 1), 2, 2, 2).view_as(expected), expected)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolve_is_the_sum_over_taps(dim, stride, dilation):
    x = torch.randn(2, 3, *[7] * dim, dtype=torch.float64)
    kernel = torch.randn(4, 3, *[3] * dim, dtype=torch.float64)
    windows = x
    for axis in range(dim):
        windows = windows.unfold(2 + axis, 2 * dilation + 1, stride)
    windows = windows[(..., *[slice(None, None, dilation)] * dim)]
    expected = torch.tensordot(windows, kernel, dims=([1, *range(2 + dim, 2 + 2 * dim)], [1, *range(2, 2 + dim)]))
    assert torch.allclose(convolve(x, kernel, stride, dilation), expected.movedim(-1, 1), atol=1e-11)


def test_dilation_and_stride_in_the_module():
    _, conv = convolution((1, 1), padding="periodic")
    x = torch.randn(1, 2, 4, 8, 8)
    plain = conv(x)
    conv.stride = 2
    assert torch.allclose(conv(x), plain[..., ::2, ::2], atol=1e-6)
    _, dilated = convolution((1, 1), padding="periodic", dilation=2)
    assert dilated(x).shape == (1, 3, 4, 8, 8)


def test_kernel_module_may_be_given_ready():
    algebra = CliffordAlgebra((1, 1))
    kernel = ImplicitKernel(algebra, 2, 3, 3, **SMALL)
    conv = CliffordSteerableConv(algebra, 2, 3, 3, kernel=kernel, bias=False)
    assert conv.kernel is kernel
    x = torch.randn(1, 2, 4, 6, 6)
    expected = torch.nn.functional.conv2d(x.flatten(1, 2), kernel(), padding=1)
    assert torch.allclose(conv(x).flatten(1, 2), expected, atol=1e-6)


def test_periodic_padding_wraps_and_mirror_reflects_vectors():
    algebra = CliffordAlgebra((1, 1))
    x = torch.randn(1, 1, 4, 3, 4)
    periodic = Padding(algebra, 2, "periodic")(x)
    assert torch.equal(periodic, torch.nn.functional.pad(x[0], (2, 2, 2, 2), mode="circular")[None])
    mirror = Padding(algebra, 1, ("mirror", "zeros"))(x)
    assert torch.equal(mirror[0, 0, :, 0, 1:-1], x[0, 0, :, 0] * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None])
    assert not mirror[..., 0].any()


def test_a_free_slip_wall_is_the_mirror_rule():
    """With mirror ghosts the normal velocity at the wall, the mean of cell and ghost, is zero."""
    algebra = CliffordAlgebra((1, 1, 1))
    velocity = torch.zeros(1, 1, 8, 4, 4, 4)
    velocity[:, :, 1:4] = torch.randn(1, 1, 3, 4, 4, 4)
    padded = Padding(algebra, 1, Grid((4, 4, 4), 1.0, "slip"))(velocity)
    assert not (padded[:, :, 2, :, 0] + padded[:, :, 2, :, 1]).any()
    assert torch.equal(padded[:, :, 1, 1:-1, 0, 1:-1], velocity[:, :, 1, :, 0, :])


def test_a_perfect_conductor_is_minus_the_reflection():
    """On the wall, the mean of cell and ghost: tangential E and normal B vanish, normal E and tangential B do not."""
    algebra = CliffordAlgebra((1, 1, 1))
    field = torch.zeros(1, 1, 8, 4, 4, 4)
    field[:, :, 1:7] = torch.randn(1, 1, 6, 4, 4, 4)  # E in grade 1, B in grade 2
    padded = Padding(algebra, 1, Grid((4, 4, 4), 1.0, ("conductor", "periodic", "periodic")))(field)
    wall = (padded[:, :, :, 0] + padded[:, :, :, 1])[0, 0]
    vanish = {algebra.blade_names[i] for i in range(1, 7) if not wall[i].any()}
    assert vanish == {"e2", "e3", "e23"}  # E2, E3 and B1 (e23)


def test_a_ready_kernel_must_fit():
    algebra = CliffordAlgebra((1, 1))
    for kernel in (
        ImplicitKernel(algebra, 2, 3, 5, **SMALL),
        ImplicitKernel(algebra, 1, 3, 3, **SMALL),
        ImplicitKernel(CliffordAlgebra((1, -1)), 2, 3, 3, **SMALL),
    ):
        with pytest.raises(ValueError, match=r"`kernel` has (kernel_size|in_channels|algebra) .*, but the convolution"):
            CliffordSteerableConv(algebra, 2, 3, 3, kernel=kernel)


def test_padding_of_a_grid_follows_its_boundary():
    grid = Grid((4, 4), 1.0, ("periodic", ("slip", "open")))
    assert padding_modes(grid, 2) == (("periodic", "periodic"), ("mirror", "zeros"))
    ghosts = pad_axis(torch.arange(3.0), 0, 1, 2, ("symmetric", "zeros"))
    assert ghosts.tolist() == [0, 0, 1, 2, 0, 0]


def test_errors():
    algebra = CliffordAlgebra((1, 1))
    with pytest.raises(ValueError, match=r"`padding` \(='reflect'\) must be one of 'zeros'"):
        CliffordSteerableConv(algebra, 1, 1, 3, padding="reflect")
    with pytest.raises(ValueError, match=r"`padding` \(='nonsense'\)"):
        CliffordSteerableConv(algebra, 1, 1, 1, padding="nonsense")
    with pytest.raises(ValueError, match=r"`stride` \(=0\) must be at least 1"):
        CliffordSteerableConv(algebra, 1, 1, 3, stride=0)
    with pytest.raises(ValueError, match=r"`kernel_options` goes with a kernel given by name"):
        CliffordSteerableConv(algebra, 1, 1, 3, kernel=ImplicitKernel(algebra, 1, 1, 3), kernel_options=SMALL)
    conv = CliffordSteerableConv(algebra, 2, 3, 7, kernel_options=SMALL)
    with pytest.raises(RuntimeError, match=r"the grid \(3, 8\) is smaller than the kernel, which spans 7 cells"):
        conv(torch.zeros(1, 2, 4, 3, 8))
    with pytest.raises(RuntimeError, match=r"expected 2 grid axes after \(batch, channel, blade\)"):
        conv(torch.zeros(1, 2, 4, 8))
    with pytest.raises(RuntimeError, match=r"expects \(batch, 2, 4, ...\)"):
        conv(torch.zeros(1, 3, 4, 8, 8))
