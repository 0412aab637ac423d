"""Figures have a row per field, share scales, and survive NaN; the GIF has a frame per moment."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.plotting import error_curves, field_panels, loss_curves, save_animation

PLANE = FieldSpec(
    (1, 1), [Field("density", 0), Field("velocity", 1, "m/s"), Field("g", 1, "m/s^2", "parameter", (0, 1))]
)
GRID = Grid((12, 8), (0.5, 1.0), "slip")


def frame(scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(4, *GRID.shape, generator=generator) * scale
    return values * PLANE.occupied.view(-1, 1, 1)


def png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_panels_have_a_row_per_field_and_one_scale_for_truth_and_prediction():
    truth, prediction = frame(), frame(5.0)
    figure = field_panels(PLANE, GRID, {"truth": truth, "prediction": prediction}, errors={"error": prediction - truth})
    density_truth, density_prediction, density_error = images(figure)[:3]
    assert len(images(figure)) == 6
    assert density_truth.get_clim() == density_prediction.get_clim()
    assert density_truth.get_clim()[1] == pytest.approx(float(truth[0].max()))
    low, high = density_error.get_clim()
    assert low == -high  # an error of a scalar is shown about zero
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert {"density", "|velocity| [m/s]", "y [m]"} <= labels
    assert len(png(figure)) > 10_000


def test_axis_zero_of_the_grid_runs_to_the_right():
    single = torch.zeros(4, *GRID.shape)
    single[0, 10, 1] = 1.0
    shown = np.asarray(images(field_panels(PLANE, GRID, {"truth": single}))[0].get_array())
    assert np.unravel_index(shown.argmax(), shown.shape) == (1, 10)


def test_a_vector_panel_shows_the_magnitude():
    single = torch.zeros(4, *GRID.shape)
    single[1, 2, 3], single[2, 2, 3] = 3.0, 4.0
    shown = np.asarray(images(field_panels(PLANE, GRID, {"truth": single}))[1].get_array())
    assert shown.max() == pytest.approx(5.0)


def test_nan_does_not_stretch_the_scale():
    broken = frame()
    broken[0, 0, 0], broken[0, 1, 1] = float("nan"), float("inf")
    low, high = images(field_panels(PLANE, GRID, {"truth": broken}))[0].get_clim()
    assert np.isfinite([low, high]).all()
    assert high <= 1.0


def test_space_is_shown_in_its_middle_slice():
    spec = FieldSpec((1, 1, 1), [Field("E", 1, "V/m"), Field("B", 2, "T"), Field("charge", 3, "C")])
    grid = Grid((6, 5, 4))
    values = torch.randn(8, *grid.shape)
    figure = field_panels(spec, grid, {"truth": values})
    assert len(images(figure)) == 3
    assert np.asarray(images(figure)[2].get_array()) == pytest.approx(values[7, :, :, 2].T.numpy())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({}, "`frames` is empty"),
        ({"truth": torch.zeros(4, 3, 3)}, r"`truth` has shape \(4, 3, 3\), expected \(4, 12, 8\)"),
    ],
)
def test_frames_that_do_not_fit_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        field_panels(PLANE, GRID, frames)


def test_a_line_cannot_be_an_image():
    spec = FieldSpec((1,), [Field("u", 0)])
    with pytest.raises(ValueError, match=r"`grid` \(=\(8,\)\) has one axis"):
        field_panels(spec, Grid((8,)), {"truth": torch.zeros(2, 8)})


def test_error_curves_run_over_time_and_differ_by_more_than_colour():
    figure = error_curves({"csresnet": [0.1, 0.2, 0.3], "resnet": [0.2, 0.4, 0.0]}, dt=1.5)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["csresnet", "resnet"]
    assert list(lines[0].get_xdata()) == [1.5, 3.0, 4.5]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert np.isnan(lines[1].get_ydata()[2])  # no logarithm of zero
    assert figure.axes[0].get_yscale() == "log"


def test_loss_curves_keep_their_steps():
    figure = loss_curves({"train": ([0, 10, 20], [1.0, 0.5, 0.25])}, title="losses")
    assert list(figure.axes[0].lines[0].get_xdata()) == [0, 10, 20]
    assert figure.axes[0].get_title() == "losses"


def test_animation_has_a_frame_per_moment(tmp_path):
    truth = torch.stack([frame(), frame(2.0), frame(3.0)])
    path = save_animation(tmp_path / "a" / "rollout.gif", PLANE, GRID, {"truth": truth, "model": truth[:2]}, dt=1.5)
    with Image.open(path) as image:
        assert image.n_frames == 2  # the shorter of the two
        assert image.info["loop"] == 0


@pytest.mark.parametrize(
    ("field", "message"), [("g", "is a parameter"), ("speed", "No field 'speed'"), (None, "holds no frames")]
)
def test_animations_that_cannot_be_are_refused(tmp_path, field, message):
    sequences = {} if field is None else {"truth": frame()[None]}
    with pytest.raises(ValueError, match=message):
        save_animation(tmp_path / "a.gif", PLANE, GRID, sequences, dt=1.0, field=field)
