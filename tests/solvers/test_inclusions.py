import math

import pytest
import torch

from cliffsteer import Grid
from cliffsteer.solvers.inclusions import Inclusions


def volume(cells, grid):
    """Volume of what has permittivity 3 in a background of 1."""
    return float((cells - 1).sum()) / 2 * math.prod(grid.spacing)


@pytest.mark.parametrize("boundary", ["periodic", "conductor"])
def test_bodies_have_their_volume(boundary):
    grid = Grid((20, 24, 16), (0.05, 0.05, 0.07), boundary)
    bodies = {"size": (0.4, 0.4), "permittivity": (3, 3)}
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        block = volume(Inclusions(blocks=1, **bodies).draw(grid, 1.0, generator), grid)
        ball = volume(Inclusions(balls=1, **bodies).draw(grid, 1.0, generator), grid)
        if boundary == "periodic":
            assert block == pytest.approx(0.4**3, rel=1e-12)
            assert ball == pytest.approx(math.pi / 6 * 0.4**3, rel=0.02)
        else:  # what lies beyond the walls is cut off
            assert 0.4**3 / 8 - 1e-12 <= block <= 0.4**3 + 1e-12
            assert ball <= math.pi / 6 * 0.4**3 * 1.02


def test_a_later_body_displaces_earlier_ones():
    grid = Grid((4, 4), 0.25)
    cells = Inclusions(blocks=5, size=(2, 2), permittivity=(2, 3)).draw(grid, 1.0, torch.Generator().manual_seed(0))
    assert float(cells.max() - cells.min()) < 1e-12
    assert 2 <= float(cells.mean()) <= 3


def test_permittivity_lies_between_those_of_the_media():
    cells = Inclusions(blocks=3, balls=3).draw(Grid((16, 16, 16), 1 / 16), 1.5, torch.Generator().manual_seed(1))
    assert float(cells.min()) == 1.5
    assert 2 < float(cells.max()) <= 4


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"`inclusions.bals` is no option: .* Did you mean 'balls'\?"):
        Inclusions.of_options({"bals": 1})
    with pytest.raises(ValueError, match=r"`inclusions` \(=3\) must be a mapping of blocks, balls"):
        Inclusions.of_options(3)
    with pytest.raises(ValueError, match=r"`inclusions.blocks` \(=1.5\) must be a whole number"):
        Inclusions.of_options({"blocks": 1.5})
    with pytest.raises(ValueError, match=r"`inclusions.permittivity` \(=0\) must be a finite number above 0"):
        Inclusions.of_options({"permittivity": (0, 1)})
    with pytest.raises(
        ValueError, match=r"`inclusions.size` \(=\(2, 1\)\) must be a pair \(lowest, highest\), lowest <="
    ):
        Inclusions.of_options({"size": (2, 1)})
    with pytest.raises(ValueError, match=r"`inclusions.size` \(=1\) must be a pair \(lowest, highest\)"):
        Inclusions.of_options({"size": 1})
