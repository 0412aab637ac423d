"""Figures of kernels show every entry where it belongs, with the light cone over it."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from cliffsteer import CliffordAlgebra
from cliffsteer.kernel_plots import basis_figure, kernel_figure
from cliffsteer.nn import CompleteKernel, ImplicitKernel


def written(figure, kind="png") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def image(axes, k: int, row: int, column: int) -> np.ndarray:
    """One image of a mosaic, (up, right), from its mesh, whose rows run downwards; NaN where nothing is drawn."""
    mesh = axes.collections[0].get_array().filled(np.nan)
    step = k + 1
    return mesh[row * step : row * step + k, column * step : column * step + k][::-1]


def cones(axes) -> np.ndarray:
    """Points of the dashed lines, in images."""
    return np.concatenate([*(np.zeros((0, 2)),), *axes.collections[1].get_segments()])


def test_each_image_is_an_entry_of_the_kernel_with_time_upwards():
    kernel = CompleteKernel(CliffordAlgebra((1, -1)), 2, 3, 5)
    axes = kernel_figure(kernel, 2, 1).axes[0]
    values = kernel().detach().view(3, 4, 2, 4, 5, 5)[2, :, 1]  # (out, in, time, space)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        assert image(axes, 5, row, column) == pytest.approx(values[row, column].numpy())
    plain = kernel_figure(kernel, 2, 1, plane=(0, 1)).axes[0]
    assert image(plain, 5, 1, 2) == pytest.approx(values[1, 2].T.numpy())


def test_entries_that_vanish_are_left_out():
    axes = kernel_figure(ImplicitKernel(CliffordAlgebra((1, 1)), 1, 1, 5)).axes[0]
    assert np.isnan(image(axes, 5, 0, 3)).all()  # a pseudoscalar gives no scalar
    assert not np.isnan(image(axes, 5, 3, 3)).any()


def test_the_light_cone_is_where_the_metric_is_indefinite():
    kernel = {n: CompleteKernel(CliffordAlgebra((1, *[-1] * n)), 1, 1, 7) for n in (1, 2)}
    diagonal = cones(kernel_figure(kernel[1]).axes[0])
    inside = diagonal[(diagonal <= 1).all(1)] - 0.5  # the image at the top left
    assert len(inside) > 100
    assert np.abs(inside[:, 0]) == pytest.approx(np.abs(inside[:, 1]))
    assert not len(cones(kernel_figure(CompleteKernel(CliffordAlgebra((1, 1)), 1, 1, 7)).axes[0]))
    circle = cones(kernel_figure(kernel[2], plane=(1, 2), at=-2).axes[0])  # of the points with x1 = -2
    first = circle[(circle <= 1).all(1)] - 0.5
    assert np.hypot(*first.T) * 7 == pytest.approx(2.0)
    hyperbola = cones(kernel_figure(kernel[2], plane=(0, 1), at=1).axes[0])
    first = 7 * (hyperbola[(hyperbola <= 1).all(1)] - 0.5)
    assert first[:, 0] ** 2 - first[:, 1] ** 2 == pytest.approx(1.0)  # x1² - x2² - 1 = 0


def test_one_large_value_does_not_hide_the_rest():
    kernel = CompleteKernel(CliffordAlgebra((1, 1)), 1, 1, 15)
    with torch.no_grad():
        kernel.origin.fill_(1e3)
    low, high = kernel_figure(kernel).axes[0].collections[0].get_clim()
    assert low == -high
    assert high < 1.0


@pytest.mark.parametrize(
    ("signature", "group", "maps"),
    [((1, 1), "O", 8), ((1, -1), "SO", 16), ((1, -1), "orthochronous", 8), ((1, 1, 1), "O", 12)],
)
def test_the_poster_shows_every_map_once(signature, group, maps):
    figure = basis_figure(CliffordAlgebra(signature), 5, group)
    assert len(figure.axes) == maps
    titles = [axes.get_title() for axes in figure.axes]
    assert len(set(titles)) == maps
    assert sum("⋆" in title for title in titles) == (8 if group == "SO" else 0)
    assert all(axes.collections[0].get_array().count() for axes in figure.axes)
    assert f"The {maps} " in figure.get_suptitle()


def test_the_poster_has_the_maps_under_their_formulas():
    figure = basis_figure(CliffordAlgebra((1, 1)), 5)
    by_title = {axes.get_title(): axes for axes in figure.axes}
    ramp = np.linspace(-1, 1, 5)
    wedge = by_title["x ∧ ⟨f⟩$_0$"]
    assert image(wedge, 5, 1, 0) == pytest.approx(np.tile(ramp, (5, 1)))  # 1 -> x1 e1
    assert image(wedge, 5, 2, 0) == pytest.approx(np.tile(ramp, (5, 1)).T)
    assert image(by_title["⟨f⟩$_2$"], 5, 3, 3) == pytest.approx(np.ones((5, 5)))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_figures_can_be_written(kind):
    algebra = CliffordAlgebra((1, -1, -1, -1))
    assert len(written(kernel_figure(ImplicitKernel(algebra, 1, 1, 3)), kind)) > 10_000


def test_refusals():
    algebra = CliffordAlgebra((1, -1, -1))
    kernel = CompleteKernel(algebra, 1, 2, 3)
    with pytest.raises(ValueError, match=r"`out_channel` \(=2\) must be in 0..1"):
        kernel_figure(kernel, 2)
    with pytest.raises(ValueError, match=r"`in_channel` \(=-1\) must be in 0..0"):
        kernel_figure(kernel, 0, -1)
    with pytest.raises(ValueError, match=r"`plane` \(=\[0, 3\]\) must hold two different axes out of 0..2"):
        kernel_figure(kernel, plane=(0, 3))
    with pytest.raises(ValueError, match=r"`at` \(=2\) must be in -1..1"):
        basis_figure(algebra, 3, at=2)
    with pytest.raises(ValueError, match="no axis besides the two"):
        basis_figure(CliffordAlgebra((1, 1)), 5, at=1)
    with pytest.raises(ValueError, match="one axis: images need two"):
        basis_figure(CliffordAlgebra((1,)), 5)
    with pytest.raises(ValueError, match=r"`group` \(='U'\) must be one of"):
        basis_figure(algebra, 3, "U")
    with pytest.raises(ValueError, match="has no `algebra`: give a kernel module"):
        kernel_figure(nn.Conv2d(1, 1, 3))


def test_values_that_are_not_finite_are_refused():
    kernel = CompleteKernel(CliffordAlgebra((1, 1)), 1, 1, 3)
    with torch.no_grad():
        kernel.origin[0] = torch.nan
    with pytest.raises(ValueError, match=r"`kernel` has 16 of 144 values that are not finite"):
        kernel_figure(kernel)
