import math

import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets.spectra import isotropic_spectra
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.training.physics import Divergence, Energy, Sobolev, SpectralEnergy

DENSITY, VELOCITY = Field("density", 0), Field("velocity", 1, "m/s")
PLANE = FieldSpec((1, 1), [DENSITY, VELOCITY])


def field(spec, grid, **functions):
    """A frame of each component's function of the coordinates, float64."""
    x = grid.coordinates().unbind(0)
    values = {}
    for f in spec.dynamic:
        given = functions.get(f.name)
        parts = given(*x) if given else [torch.zeros(grid.shape)] * spec.slots[f.name].size
        values[f.name] = torch.stack([part.expand(grid.shape).double() for part in parts])[None, None]
    return spec.pack(values)


# ------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("boundary", ["periodic", "slip", ("periodic", "slip")])
def test_divergence_of_a_wave_is_that_of_central_differences(boundary):
    grid = Grid((16, 12), (0.5, 0.25), boundary)
    k = 2 * math.pi / 8.0
    error = field(PLANE, grid, velocity=lambda x, y: (torch.sin(k * x), torch.zeros_like(x)))
    term = Divergence(PLANE, grid, grid.spacing)
    x = grid.coordinates()[0]
    expected = torch.cos(k * x) * math.sin(k * 0.5) / 0.5
    cut = [slice(None) if sides[0] == "periodic" else slice(1, -1) for sides in grid.boundary]
    divergence = term.of(PLANE.unpack(error)["velocity"], 1)[0, 0, 0]
    torch.testing.assert_close(divergence, expected[tuple(cut)])
    assert term(error, error, error).item() == pytest.approx(expected[tuple(cut)].square().mean().item())


def test_a_rotation_has_no_divergence_and_an_expansion_has():
    grid = Grid((6, 7), 1.0, "slip")
    term = Divergence(PLANE, grid, grid.spacing)
    turning = field(PLANE, grid, velocity=lambda x, y: (-y, x))
    growing = field(PLANE, grid, velocity=lambda x, y: (3 * x, -y))
    assert term(turning, turning, turning).item() == pytest.approx(0, abs=1e-20)
    assert term(growing, growing, growing).item() == pytest.approx(4.0)


def test_a_bivector_in_space_has_the_divergence_of_its_dual():
    spec = FieldSpec((1, 1, 1), [Field("magnetic", 2, "T")])
    grid = Grid((5, 6, 4), 1.0, "open")
    # B = x e23 + 2 y e31 + 3 z e12, in blades e12, e13, e23
    error = field(spec, grid, magnetic=lambda x, y, z: (3 * z, -2 * y, x))
    assert Divergence(spec, grid, grid.spacing)(error, error, error).item() == pytest.approx(36.0)


def test_in_spacetime_a_field_with_a_potential_is_closed(generator):
    spec = FieldSpec((1, -1, -1), [Field("faraday", 2)])
    grid = Grid((6, 6, 6))
    potential = torch.randn(3, 6, 6, 6, dtype=torch.float64, generator=generator)

    def d(i, a):
        return (a.roll(-1, i) - a.roll(1, i)) / 2

    # F = ∇∧A = Σ_{i<j} e^i∧e^j (∂_i A_j − ∂_j A_i), with e^i = g_ii e_i
    sign = spec.algebra.signature
    pairs = [(0, 1), (0, 2), (1, 2)]
    parts = [sign[i] * sign[j] * (d(i, potential[j]) - d(j, potential[i])) for i, j in pairs]
    closed = spec.pack({"faraday": torch.stack(parts)[None, None]})
    term = Divergence(spec, grid, grid.spacing)
    assert term(closed, closed, closed).item() < 1e-28
    other = torch.randn(closed.shape, dtype=torch.float64, generator=generator)
    assert term(other, other, other).item() > 0.1


@pytest.mark.parametrize(
    ("spec", "grid", "message"),
    [
        (FieldSpec((1, 1), [DENSITY]), Grid((8, 8)), r"`loss.divergence` needs a field of grade 1 to n - 1"),
        (PLANE, Grid((8, 2), 1.0, "slip"), r"`loss.divergence` needs at least 3 cells on axis 1"),
    ],
)
def test_divergence_refusals(spec, grid, message):
    with pytest.raises(ValueError, match=message):
        Divergence(spec, grid, grid.spacing)


# --------------------------------------------------------------------------------- gradients, energy, spectra


def test_sobolev_of_a_slope_and_of_a_wave():
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0])
    walls = Grid((8, 6), (0.5, 2.0), "slip")
    slope = field(PLANE, walls, density=lambda x, y: (3 * x - 2 * y,))
    assert Sobolev(PLANE, walls, walls.spacing, weights)(slope, slope, slope).item() == pytest.approx(9 + 4)
    ring = Grid((8, 6))
    wave = field(PLANE, ring, density=lambda x, y: (torch.sin(math.pi / 4 * x),))
    expected = (2 * math.sin(math.pi / 8)) ** 2 / 2
    assert Sobolev(PLANE, ring, ring.spacing, weights)(wave, wave, wave).item() == pytest.approx(expected)


def test_energy_of_constants():
    grid = Grid((4, 4))
    truth = field(PLANE, grid, density=lambda x, y: (torch.ones(4, 4),), velocity=lambda x, y: (x * 0 + 1, x * 0 + 2))
    term = Energy(PLANE, torch.tensor([0.25, 0.75]))
    assert term(truth, truth, truth).item() == 0
    # density² 1 -> 4, velocity² 5 -> 20
    assert term(truth, 2 * truth, truth).item() == pytest.approx(0.25 * 9 + 0.75 * 225)


def test_octaves_hold_the_shells_of_the_isotropic_spectrum(generator):
    grid = Grid((12, 16), (0.5, 0.5))
    frames = torch.randn(2, 1, 4, 12, 16, dtype=torch.float64, generator=generator)
    term = SpectralEnergy(PLANE, grid, torch.ones(2), torch.ones(2))
    k, spectra = isotropic_spectra(PLANE, grid, frames)
    for name, values in PLANE.unpack(frames).items():
        energy = torch.from_numpy(spectra[name]) * k[1]
        octaves = [energy[..., 2**b : 2 ** (b + 1)].sum(-1) for b in range(4)]
        torch.testing.assert_close(term.energies(values), torch.stack(octaves, -1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("boundary", ["periodic", "slip"])
def test_the_spectral_term_of_a_field_twice_as_large(boundary):
    grid = Grid((16, 16), 1.0, boundary)
    truth = torch.randn(1, 2, 4, 16, 16, dtype=torch.float64)
    term = SpectralEnergy(PLANE, grid, torch.full((2,), 1e-12), torch.tensor([0.5, 0.5]))
    assert term(truth, truth, truth).item() == 0
    assert term(truth, 2 * truth, truth).item() == pytest.approx(math.log(4) ** 2)


def test_on_spacetime_the_waves_are_those_of_space():
    spec = FieldSpec((1, -1, -1), [Field("field", 1)])
    term = SpectralEnergy(spec, Grid((3, 8, 8), unit=("s", "m", "m")), torch.ones(1), torch.ones(1))
    assert term.axes == [1, 2]
    wave = torch.zeros(1, 1, 3, 3, 8, 8)
    wave[:, :, 1] = torch.sin(torch.arange(8) * math.pi / 2).view(8, 1)  # two waves along the side
    assert term.energies(wave)[0, 0].tolist() == pytest.approx([0, 0.5, 0], abs=1e-7)


def test_symmetries_of_the_lattice_change_nothing(generator):
    grid = Grid((8, 8), 1.0, "slip")
    error, truth = (torch.randn(2, 1, 4, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    fields, blades = torch.tensor([0.3, 0.7]), torch.tensor([0.3, 0.35, 0.35, 0.0])
    terms = [
        Divergence(PLANE, grid, grid.spacing),
        Sobolev(PLANE, grid, grid.spacing, blades),
        Energy(PLANE, fields),
        SpectralEnergy(PLANE, grid, fields * 1e-6, fields),
    ]
    for g in lattice_symmetries(PLANE.algebra, grid):
        turned = [g.act(PLANE.algebra, x) for x in (error, truth + error, truth)]
        for term in terms:
            assert term(*turned).item() == pytest.approx(term(error, truth + error, truth).item(), rel=1e-10)
