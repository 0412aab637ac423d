import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.current_sheets import CurrentSheets, polarisation
from cliffsteer.solvers.yee import YeeGrid


@pytest.mark.parametrize("boundary", ["periodic", "conductor"])
def test_a_sheet_has_its_moment_on_every_grid(boundary):
    # ∫P = amplitude · volume, whatever the grid; near walls part of it is cut off.
    sheets = CurrentSheets(count=4, size=(0.2, 0.3), thickness=0.01, amplitude=(2.0, 2.0))
    moments = []
    for shape in ((8, 8, 8), (15, 12, 20)):
        yee = YeeGrid(Grid(shape, tuple(1 / n for n in shape), boundary))
        rows = sheets.draw(yee.grid, torch.Generator().manual_seed(1))[None]
        field = polarisation(yee, rows, torch.ones(1, 4, dtype=torch.float64))
        moments.append(torch.stack([f.sum() * math.prod(yee.grid.spacing) for f in field]))
    if boundary == "periodic":
        center, sides, vector = rows[0, :, :9].unflatten(-1, (3, 3)).unbind(1)
        expected = (vector * sides.prod(-1, keepdim=True)).sum(0)
        torch.testing.assert_close(moments[0], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(moments[1], expected, rtol=1e-12, atol=0)
        assert center.min() >= 0
        torch.testing.assert_close(vector.norm(dim=-1), torch.full((4,), 2.0, dtype=torch.float64))
        assert sides.min(-1).values.tolist() == [0.01] * 4
        assert float((vector * (sides == 0.01)).abs().max()) == 0  # in its plane
    else:
        assert float((moments[0] - moments[1]).norm()) < 0.2 * float(moments[1].norm())


def test_a_sheet_as_large_as_the_domain_has_no_edge():
    yee = YeeGrid(Grid((6, 6, 6), 1 / 6))
    rows = CurrentSheets(count=1, size=(1.0, 1.0)).draw(yee.grid, torch.Generator().manual_seed(0))[None]
    field = polarisation(yee, rows, torch.ones(1, 1, dtype=torch.float64))
    charge = yee.zeros(0, field[0])
    yee.add_divergence(charge, field, 1)
    assert float(charge[0].abs().max()) < 1e-12
    assert max(float(f.abs().max()) for f in field) > 0.1


def test_waveforms_begin_and_end_at_zero():
    pulse, lasting = CurrentSheets(count=2, cycles=3), CurrentSheets(count=2, cycles=None)
    rows = pulse.draw(Grid((4, 4, 4), 0.25), torch.Generator().manual_seed(0))[None]
    period, phase = rows[..., -2], rows[..., -1]

    def at(sheets, time):
        return sheets.waveform(rows, torch.tensor([float(time)], dtype=torch.float64))

    for sheets in (pulse, lasting):
        assert float(at(sheets, 0.0).abs().max()) == 0
        assert float(at(sheets, 1e-4).abs().max()) < 1e-4  # smoothly
        assert not sheets.silent(rows, torch.zeros(1))
    end = 3 * float(period.max())
    assert float(at(pulse, end).abs().max()) == 0
    assert float(at(pulse, end / 2).abs().max()) > 0.05
    assert pulse.silent(rows, torch.tensor([end], dtype=torch.float64))
    assert not pulse.silent(rows, torch.tensor([0.9 * end]))
    assert not lasting.silent(rows, torch.tensor([100 * end]))
    torch.testing.assert_close(at(lasting, 10.3), torch.sin(2 * math.pi * 10.3 / period + phase))
    assert CurrentSheets().silent(rows[:, :0], torch.zeros(1))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"`sources.amplitud` is no option: .* Did you mean 'amplitude'\?"):
        CurrentSheets.of_options({"amplitud": 1})
    with pytest.raises(ValueError, match=r"`sources.cycles` \(=1\) must be a whole number, at least 2"):
        CurrentSheets.of_options({"cycles": 1})
    with pytest.raises(ValueError, match=r"`sources.wavelength` \(=0\) must be a finite number in m above 0"):
        CurrentSheets.of_options({"wavelength": (0, 1)})
