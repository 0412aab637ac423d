"""The heat map has a cell for each layer and element, and names what is broken in orange."""

import numpy as np
import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.diagnostics import diagnose
from cliffsteer.diagnostics_plots import equivariance_figure
from cliffsteer.normalization import Normalization
from cliffsteer.plotting import COLOURS

SPEC = FieldSpec((1, 1), [Field("velocity", 1, "m/s")])


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    options = {"hidden_channels": 2, "blocks": [1], "kernel_size": 3, "padding": [["zeros", "mirror"], "zeros"]}
    model = {"name": "csresnet", "kernel": "implicit", **options}
    grid = Grid((8, 8), 1.0, "slip")
    surrogate = Surrogate.create(model, SPEC, grid, 1.0, 1, 1, Normalization.identity(SPEC))
    return diagnose(surrogate, paddings=[])


def test_a_cell_for_each_layer_and_element_coloured_by_its_decade(result):
    axes = equivariance_figure(result, "a title").axes[0]
    symmetries, translations, away, turns, sampled, single = (np.ma.getdata(i.get_array()) for i in axes.images)
    count = len(result["layers"])
    shapes = [group.shape for group in (symmetries, translations, away, turns, sampled, single)]
    assert shapes == [(count, columns) for columns in (7, 2, 2, 1, 1, 7)]
    errors = np.array([row["float64"][:7] for row in result["layers"]])
    assert symmetries == pytest.approx(np.log10(np.maximum(errors, 1e-16)))
    assert len({image.get_clim() for image in axes.images}) == 1


def test_what_was_not_measured_is_no_colour(result):
    sampled = equivariance_figure(result).axes[0].images[4].get_array()
    shown = [
        row["name"] for row, mask in zip(result["layers"], np.ma.getmaskarray(sampled)[:, 0], strict=True) if not mask
    ]
    assert shown == ["blocks.0.conv1", "blocks.0.conv2"]


def test_broken_layers_are_orange_and_lacking_elements_grey(result):
    axes = equivariance_figure(result).axes[0]
    orange = [label.get_text() for label in axes.get_yticklabels() if label.get_color() == COLOURS[1]]
    assert orange[0] == "surrogate"
    assert "blocks.0.conv1  (CliffordSteerableConv)" in orange
    assert "blocks.0.norm1  (MVLayerNorm)" not in orange
    grey = {label.get_text() for label in axes.get_xticklabels() if label.get_color() == "#8a8a8a"}
    assert grey == {"shift x1", "shift x2"}


def test_numbers_are_readable(result):
    texts = [text.get_text() for text in equivariance_figure(result).axes[0].texts]
    assert "·" in texts
    assert "−16" in texts
    assert any(text.startswith(".") for text in texts)


def test_errors_that_are_no_numbers_count_as_broken(result):
    broken = {**result, "layers": [{**row, "float64": [float("nan")] * 9} for row in result["layers"]]}
    axes = equivariance_figure(broken).axes[0]
    assert (axes.images[0].get_array() == 0).all()
    assert "∞" in {text.get_text() for text in axes.texts}
