"""Physics terms of a loss: divergence, gradients, energy and spectra of predictions against those of the truth.

Each is a module called with (error, prediction, truth), all (batch, time, blade, *grid), and returns a number.
Derivatives are differences between neighbouring cells; they go around a periodic axis and leave out what a wall would
enter into. All four do not change under the symmetries of the lattice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid

FLOOR = 1e-6
"""Energy of a field's octave, relative to the square of the field's scale, below which its logarithm levels off."""


class Divergence(nn.Module):
    """Σ_f ⟨(∇·e_f)²⟩ over the number of such fields, e the error.

    Vector fields have ∇·e = Σᵢ ∂ᵢeᵢ; fields of grade 2 to n − 1 have the closure ∇∧e = Σᵢ eⁱ∧∂ᵢe, the mean square of
    its components: in space that of a bivector field is the divergence of its dual vector, as for the magnetic field,
    in spacetime it is the homogeneous half of Maxwell's equations. Derivatives are central differences.

    Args:
        spec: the fields.
        grid: their grid.
        spacing: cell size along each axis, in the unit of length of the loss.

    Raises:
        ValueError: no field of these grades, or an axis of fewer than three cells between walls.
    """

    def __init__(self, spec: FieldSpec, grid: Grid, spacing: Sequence[float]):
        super().__init__()
        self.fields = [field for field in spec.dynamic if 1 <= field.grade < max(spec.algebra.dim, 2)]
        if not self.fields:
            raise ValueError(f"`loss.divergence` needs a field of grade 1 to n - 1, which {spec} has not: set it to 0.")
        self.spec, self.dim, self.spacing = spec, grid.dim, tuple(spacing)
        self.walls = [i for i in range(grid.dim) if not _is_periodic(grid, i)]
        for axis in self.walls:
            if grid.shape[axis] < 3:
                raise ValueError(f"`loss.divergence` needs at least 3 cells on axis {axis}; the grid is {grid.shape}.")
        for field in self.fields:
            self.register_buffer(f"map_{field.grade}", _divergence_maps(spec.algebra, field.grade), persistent=False)

    def forward(self, error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
        """The term."""
        parts = self.spec.unpack(error)
        return torch.stack([self.of(parts[f.name], f.grade).square().mean() for f in self.fields]).mean()

    def of(self, field: Tensor, grade: int) -> Tensor:
        """The divergence of a field (batch, time, component, *grid), of the cells that walls do not enter into."""
        maps = getattr(self, f"map_{grade}").to(field)
        total: Tensor | float = 0.0
        for axis in range(self.dim):
            place, inner = 3 + axis, field
            for other in self.walls:
                if other != axis:
                    inner = inner.narrow(3 + other, 1, inner.shape[3 + other] - 2)
            if axis in self.walls:
                cells = inner.shape[place] - 2
                change = inner.narrow(place, 2, cells) - inner.narrow(place, 0, cells)
            else:
                change = inner.roll(-1, place) - inner.roll(1, place)
            total = total + torch.einsum("oc,btc...->bto...", maps[axis], change / (2 * self.spacing[axis]))
        return total


class Sobolev(nn.Module):
    """The squared H¹ seminorm of the error, Σᵢ ⟨(∂ᵢe)²⟩, weighted over fields as the loss; forward differences.

    Args:
        spec: the fields.
        grid: their grid.
        spacing: cell size along each axis, in the unit of length of the loss.
        weights: of the mean square of each blade, shape (blade,).
    """

    def __init__(self, spec: FieldSpec, grid: Grid, spacing: Sequence[float], weights: Tensor):
        super().__init__()
        self.spacing = tuple(spacing)
        self.periodic = [_is_periodic(grid, i) for i in range(grid.dim)]
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
        """The term."""
        total: Tensor | float = 0.0
        for axis, (spacing, periodic) in enumerate(zip(self.spacing, self.periodic, strict=True)):
            place = 3 + axis
            change = error.roll(-1, place) - error if periodic else error.diff(dim=place)
            total = total + blade_means((change / spacing).square()) @ self.weights.to(error)
        return total


class Energy(nn.Module):
    """The squared error of the energy of each frame, E(⟨|û|²⟩ − ⟨|u|²⟩)², |u|² = Σ_A u_A², weighted over fields.

    Args:
        spec: the fields.
        weights: of each dynamic field, shape (field,).
    """

    def __init__(self, spec: FieldSpec, weights: Tensor):
        super().__init__()
        self.spec = spec
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
        """The term."""
        pairs = zip(self.spec.unpack(prediction).values(), self.spec.unpack(truth).values(), strict=True)
        terms = [(_energy(predicted) - _energy(true)).square().mean() for predicted, true in pairs]
        return torch.stack(terms) @ self.weights.to(error)


class SpectralEnergy(nn.Module):
    """The squared error of ln(E_b + ε s²), E_b the energy of a field in octave b of wave numbers, s the field's scale.

    Mean over octaves and frames, weighted over fields. The waves are those of `cliffsteer.datasets.spectra`: along the
    axes of space, with Hann's window and without the mean where a side is not periodic. Octave b holds the shells
    2ᵇ ≤ |κ| L / 2π < 2ᵇ⁺¹ of wave vectors κ, with L the longest side.

    Args:
        spec: the fields.
        grid: their grid.
        floors: ε s² of each dynamic field, in the square of its unit, shape (field,).
        weights: of each dynamic field, shape (field,).
    """

    def __init__(self, spec: FieldSpec, grid: Grid, floors: Tensor, weights: Tensor):
        super().__init__()
        self.spec, last = spec, grid.dim - 1
        kinds = [(spec.algebra.signature[i], grid.unit[i]) for i in range(grid.dim)]
        self.axes = [i for i in range(grid.dim) if kinds[i] == kinds[last]]
        self.cells = math.prod(grid.shape[i] for i in self.axes)
        self.walls = [3 + i for i in self.axes if not _is_periodic(grid, i)]
        self.register_buffer("floors", floors, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("window", _window(grid, self.axes), persistent=False)
        self.register_buffer("octaves", _octaves(grid, self.axes), persistent=False)

    def forward(self, error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
        """The term."""
        pairs = zip(self.spec.unpack(prediction).values(), self.spec.unpack(truth).values(), self.floors, strict=True)
        terms = [
            (torch.log(self.energies(predicted) + floor) - torch.log(self.energies(true) + floor)).square().mean()
            for predicted, true, floor in pairs
        ]
        return torch.stack(terms) @ self.weights.to(error)

    def energies(self, field: Tensor) -> Tensor:
        """Energy of a field (batch, time, component, *grid) in each octave, (batch, time, octave)."""
        places = [3 + i for i in self.axes]
        if self.walls:  # the window would spread the mean
            field = field - field.mean(self.walls, keepdim=True)
        spectrum = torch.fft.rfftn(field * self.window.to(field), dim=places) / self.cells
        power = spectrum.real.square() + spectrum.imag.square()
        others = [i for i in range(3, field.ndim) if i not in places]
        power = power.sum(2, keepdim=True).mean(others, keepdim=True) if others else power.sum(2, keepdim=True)
        return power.flatten(2) @ self.octaves.to(field)


def blade_means(x: Tensor) -> Tensor:
    """The mean of each blade of (batch, time, blade, *grid), shape (blade,)."""
    return x.transpose(0, 2).flatten(1).mean(1)


# ---------------------------------------------------------------------------------------------------- private


def _is_periodic(grid: Grid, axis: int) -> bool:
    return grid.boundary[axis][0] == "periodic"


def _energy(field: Tensor) -> Tensor:
    """⟨|u|²⟩ of each frame of (batch, time, component, *grid)."""
    return field.square().sum(2).flatten(2).mean(2)


def _divergence_maps(algebra: CliffordAlgebra, grade: int) -> Tensor:
    """For each axis, what ∂ᵢ of the components of a grade adds to those of the divergence, (axis, out, component)."""
    part, into = algebra.grade_slice(grade), algebra.grade_slice(grade - 1 if grade == 1 else grade + 1)
    blades = torch.eye(algebra.n_blades)[part]
    product = algebra.left_contraction if grade == 1 else algebra.wedge
    maps = [
        algebra.signature[i] * product(vector.expand_as(blades), blades)[:, into].T
        for i, vector in enumerate(algebra.basis_vectors(torch.float32))
    ]
    return torch.stack(maps)


def _window(grid: Grid, axes: Sequence[int]) -> Tensor:
    """Hann's window of mean square 1 along axes that are not periodic, broadcastable against the grid."""
    window = torch.ones([1] * grid.dim, dtype=torch.float64)
    for axis in axes:
        if not _is_periodic(grid, axis):
            n = grid.shape[axis]
            profile = torch.sin(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n) ** 2
            profile = profile / profile.square().mean().sqrt()
            window = window * profile.view([n if i == axis else 1 for i in range(grid.dim)])
    return window.float()


def _octaves(grid: Grid, axes: Sequence[int]) -> Tensor:
    """How much a frequency of the half spectrum counts in each octave, (frequency, octave): 1, 2 for a pair, or 0."""
    longest = max(grid.extent[i] for i in axes)
    waves = [torch.fft.fftfreq(grid.shape[i], grid.spacing[i] / longest, dtype=torch.float64) for i in axes]
    last = grid.shape[axes[-1]]
    waves[-1] = torch.fft.rfftfreq(last, grid.spacing[axes[-1]] / longest, dtype=torch.float64)
    numbers = torch.meshgrid(*waves, indexing="ij")
    shell = torch.stack(numbers).square().sum(0).sqrt().round()
    pairs = torch.full_like(shell, 2.0)
    pairs[..., 0] = 1.0
    if last % 2 == 0:
        pairs[..., -1] = 1.0
    octave = torch.log2(shell.clamp(min=0.5)).floor().long()  # -1 for the mean, which is in none
    one_hot = torch.nn.functional.one_hot(octave.flatten() + 1)[:, 1:]
    return (one_hot * pairs.flatten().unsqueeze(1)).float()
