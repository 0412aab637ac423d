import numpy as np
import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.datasets.pictures import contact_sheet, shown_slice


@pytest.mark.parametrize("signature", [(1,), (1, 1), (1, -1, -1), (1, 1, 1, 1)])
def test_every_dimension_has_a_sheet_and_it_is_the_same_every_time(signature):
    dim = len(signature)
    spec = FieldSpec(signature, [Field("a", 0), Field("v", 1, "m/s")])
    frames = torch.randn(3, spec.n_blades, *(4, 5, 6, 2)[:dim])
    sheets = [contact_sheet(spec, frames, ["t = 0", "t = 1", "t = 2"]).tobytes() for _ in range(2)]
    assert sheets[0] == sheets[1]
    assert sheets[0] != contact_sheet(spec, 1 + frames, ["t = 0", "t = 1", "t = 2"]).tobytes()


def test_axis_0_runs_to_the_right_and_axis_1_upwards():
    spec = FieldSpec((1, 1), [Field("a", 0)])
    frames = torch.zeros(1, 4, 64, 64)
    frames[0, 0, 60:, :4] = 1.0  # right, at the bottom
    picture = np.asarray(contact_sheet(spec, frames, ["now"]).convert("RGB")).astype(int)
    yellow = (picture[..., 0] > 240) & (picture[..., 2] < 60)
    rows, columns = yellow.nonzero()
    assert len(rows) == 64  # 4 x 4 cells of 2 x 2 pixels
    middle = np.array(picture.shape[:2]) / 2
    assert rows.min() > middle[0]
    assert columns.min() > middle[1]


def test_large_grids_leave_cells_out_and_constants_have_a_colour():
    spec = FieldSpec((1, 1), [Field("a", 0)])
    assert contact_sheet(spec, torch.zeros(1, 4, 1000, 600), ["now"]).width < 300


def test_the_slice_of_more_than_two_axes_is_told():
    assert [shown_slice((4, 5, 6, 2)[:dim]) for dim in (1, 2, 3, 4)] == [
        "",
        "",
        "z[3] of 0..5",
        "z[3] of 0..5, w[1] of 0..1",
    ]
    spec, frames = FieldSpec((1, 1, 1), [Field("a", 0)]), torch.zeros(1, 8, 8, 8, 6)
    sheets = [contact_sheet(spec, part, ["now"]).tobytes() for part in (frames, frames[..., :4], frames[..., :4])]
    assert sheets[0] != sheets[1] == sheets[2]  # but for the words alike


def test_labels_must_fit():
    spec = FieldSpec((1, 1), [Field("a", 0)])
    with pytest.raises(ValueError, match=r"`times` has 1 label.s. for 2 frame.s."):
        contact_sheet(spec, torch.zeros(2, 4, 8, 8), ["now"])
