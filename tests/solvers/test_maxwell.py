import pytest
import torch

from cliffsteer.solvers.maxwell import Media, box, check_media


def test_media_are_fixed_or_drawn():
    media = Media.of_options(permittivity=2.0, conductivity_range=(0.1, 0.2))
    assert {field.name: field.default for field in media.fields()} == {
        "permittivity": (2.0,),
        "permeability": (1.0,),
        "conductivity": (0.0,),
    }
    drawn = [media.draw(torch.Generator().manual_seed(seed)) for seed in range(50)]
    sigma = torch.cat([d["conductivity"] for d in drawn])
    assert 0.1 <= float(sigma.min()) < 0.12
    assert 0.18 < float(sigma.max()) <= 0.2
    assert {float(d["permittivity"]) for d in drawn} == {2.0}
    assert media.lowest("conductivity") == 0.1
    assert media.lowest("permittivity") == 2.0


def test_boxes_have_three_axes():
    grid = box((8, 4, 6), (2.0, 1.0, 3.0), ("conductor", "periodic", "periodic"))
    assert grid.shape == (8, 4, 6)
    assert grid.spacing == (0.25, 0.25, 0.5)
    assert grid.boundary[0] == ("conductor", "conductor")
    assert box(8, 2.0).extent == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box(3, 1.0), r"`resolution` \(=3\) must be a whole number of cells a side, at least 4"),
        (lambda: box((8, 8), 1.0), r"`resolution` \(=\(8, 8\)\) must be one number for all axes, or three"),
        (lambda: box(8, (1.0, 1.0, 0.0)), r"`size` \(=0.0\) must be a finite number in m above 0"),
        (lambda: box("fine", 1.0), r"`resolution` \(='fine'\) must be a whole number"),
        (lambda: Media.of_options(permittivity=0), r"`permittivity` \(=0\) must be a finite number above 0"),
        (
            lambda: Media.of_options(conductivity=-1),
            r"`conductivity` \(=-1\) must be a finite number in S/m, at least 0",
        ),
        (lambda: Media.of_options(permeability=1, permeability_range=(1, 2)), "exclude each other"),
        (
            lambda: check_media({"permittivity": torch.tensor([[1.0], [-2.0]])}),
            r"`permittivity` \(=-2\) must be finite",
        ),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
