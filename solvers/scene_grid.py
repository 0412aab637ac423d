"""MAC grid of a scene: walls or open sides, and cells that are solid.

As on ``MacGrid``, component i of a velocity lives on the faces across axis i, and pressure at the centres. Faces on
walls and of solid cells are blocked, their velocity is zero; faces on open sides have a velocity of their own. Fields
around solids have no trigonometric modes, so where ``MacGrid`` solves mode by mode conjugate gradients do it here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from cliffsteer.grid import Grid
from cliffsteer.solvers.mac import average

TOLERANCE = 1e-14
"""Relative residual of the conjugate gradients."""
DIVERGENCE = 1e-10
"""Of restored velocities: h |∇·u| / |v|, in norms over the grid; that of frames from a pressure solve stays below."""
SOLID = 1 + 1e-9
"""A cell is solid when its centre is within this times the radius: a tie is solid, whichever way it is rounded."""


class SceneGrid:
    """Operators between faces and centres of a grid whose sides are walls or open, around solid cells.

    Face velocities are tuples of one tensor (batch, *shape) per axis; shape is the grid's, but on axis i of component i
    n − 1 plus the number of open sides. Masks of faces have the same shapes, masks of cells (batch, *grid).

    Args:
        grid: the cell-centred grid.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        self.open = tuple(tuple(side == "open" for side in sides) for sides in grid.boundary)

    def rest(self, batch: int) -> tuple[Tensor, ...]:
        """Face velocities of a fluid at rest."""
        shapes = [
            [n - 1 + sum(self.open[axis]) if i == axis else n for i, n in enumerate(self.grid.shape)]
            for axis in range(self.grid.dim)
        ]
        return tuple(torch.zeros(batch, *shape, dtype=torch.float64) for shape in shapes)

    def pad(self, faces: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All faces of each cell: those on walls, zero, added."""
        return tuple(
            _padded(f, axis + 1, *(not side for side in sides))
            for axis, (f, sides) in enumerate(zip(faces, self.open, strict=True))
        )

    def divergence(self, faces: Sequence[Tensor]) -> Tensor:
        """∇·u at the centres, shape (batch, *grid), in 1/s."""
        spacing = self.grid.spacing
        return sum(f.diff(dim=i + 1) / h for i, (f, h) in enumerate(zip(self.pad(faces), spacing, strict=True)))

    def to_centers(self, faces: Sequence[Tensor]) -> Tensor:
        """Averages of opposite faces, shape (batch, axis, *grid)."""
        return torch.stack([average(f, i + 1) for i, f in enumerate(self.pad(faces))], 1)

    def distance(self, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of each cell's centre from the surface of a disc or sphere, negative inside, and unit normals.

        Args:
            center: relative to the centre of the box, in m, shape (batch, axis).
            radius: in m, shape (batch, 1); 0 where there is none.

        Returns:
            Shapes (batch, *grid), in m, and (batch, axis, *grid).
        """
        places = self.grid.coordinates().to(center)
        middle = torch.tensor(self.grid.extent, dtype=places.dtype, device=places.device) / 2
        offset = places - (center + middle).view(*center.shape, *[1] * self.grid.dim)
        length = offset.norm(dim=1, keepdim=True)
        return length[:, 0] - radius.view(-1, *[1] * self.grid.dim), offset / length.clamp_min(1e-300)

    def solid(self, center: Tensor, radius: Tensor) -> Tensor:
        """Which cells have their centre in the obstacle, bool, (batch, *grid); arguments as for ``distance``."""
        distance, _ = self.distance(center, radius * SOLID)
        return (distance <= 0) & (radius > 0).view(-1, *[1] * self.grid.dim)

    def fraction(self, center: Tensor, radius: Tensor) -> Tensor:
        """Fraction of each cell in the obstacle, (batch, *grid), from 0 to 1; arguments as for ``distance``.

        The volume that the plane along the nearest part of the surface cuts from the cell,

            Σ_c (−1)^|c| (δ − Σᵢ cᵢ wᵢ)₊ⁿ / (n! Πᵢ wᵢ),   c in {0, 1}ⁿ,   wᵢ = |mᵢ| hᵢ,   δ = Σᵢ wᵢ / 2 − d

        with its distance d from the cell's centre and its unit normal m, in n dimensions: at least half where the
        centre is in the obstacle, and off by up to h/6r, as the surface is curved.
        """
        distance, normal = self.distance(center, radius)
        h = torch.tensor(self.grid.spacing, dtype=distance.dtype, device=distance.device)
        widths = [w.clamp_min(1e-3 * min(self.grid.spacing)) for w in torch.einsum("ba...,a->ab...", normal.abs(), h)]
        depth, dim = sum(widths) / 2 - distance, self.grid.dim
        volume = torch.zeros_like(depth)
        for corner in itertools.product((0, 1), repeat=dim):
            beyond = depth - sum(c * w for c, w in zip(corner, widths, strict=True))
            volume += (-1) ** sum(corner) * beyond.clamp_min(0).pow(dim)
        filled = (volume / (math.factorial(dim) * math.prod(widths))).clamp(0, 1)
        return filled.where(depth < sum(widths), 1.0) * (radius > 0).view(-1, *[1] * dim)

    def passable(self, solid: Tensor) -> tuple[Tensor, ...]:
        """Which faces are not blocked by solid cells, bool."""
        masks = []
        for axis, (low, high) in enumerate(self.open):
            free = ~solid
            before, after = _padded(free, axis + 1, low, False, True), _padded(free, axis + 1, False, high, True)
            n = before.shape[axis + 1] - 1 + high  # without open sides one cell fewer than before
            masks.append(before.narrow(axis + 1, 0, n) & after.narrow(axis + 1, 1 - low, n))
        return tuple(masks)

    def to_faces(self, velocity: Tensor, passable: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """A divergence-free face velocity whose averages at the centres are close to ``velocity``.

        The minimum of Σ |(ū − v)|² + ¼ h² (∇·u)² over the passable faces, ū the averages, less the gradient that is
        left: it inverts ``to_centers`` of a divergence-free velocity (but for the checkerboard that a box with open
        sides all round averages to zero).

        Args:
            velocity: centred, shape (batch, axis, *grid).
            passable: mask of the faces.
        """
        mask = [m.to(velocity.dtype) for m in passable]
        sizes = [math.prod(m.shape[1:]) for m in mask]

        def flat(faces: Sequence[Tensor]) -> Tensor:
            return torch.cat([(f * m).flatten(1) for f, m in zip(faces, mask, strict=True)], 1)

        def faces(x: Tensor) -> list[Tensor]:
            return [part.view_as(m) for part, m in zip(x.split(sizes, 1), mask, strict=True)]

        weight = min(self.grid.spacing) ** 2 / 4

        def normal_equations(x: Tensor) -> Tensor:
            parts = faces(x)
            averages, gradient = self._averages_adjoint(self.to_centers(parts)), self._gradient(self.divergence(parts))
            return flat([a - weight * g for a, g in zip(averages, gradient, strict=True)])

        found = faces(conjugate_gradients(normal_equations, flat(self._averages_adjoint(velocity))))

        def laplacian(p: Tensor) -> Tensor:
            gradient = self._gradient(p.view(len(p), *self.grid.shape))
            return -self.divergence([g * m for g, m in zip(gradient, mask, strict=True)]).flatten(1)

        divergence = self.divergence(found).flatten(1)
        floor = DIVERGENCE * velocity.flatten(1).norm(dim=1) / min(self.grid.spacing)
        pressure = conjugate_gradients(laplacian, -divergence, floor).view(len(velocity), *self.grid.shape)
        gradient = self._gradient(pressure)
        return tuple(f - g * m for f, g, m in zip(found, gradient, mask, strict=True))

    def _averages_adjoint(self, centers: Tensor) -> list[Tensor]:
        """Of ``to_centers``."""
        return [self._unpad(average(_padded(c, i + 1, True, True), i + 1), i) for i, c in enumerate(centers.unbind(1))]

    def _gradient(self, pressure: Tensor) -> list[Tensor]:
        """∇p on the faces, p = 0 beyond open sides: minus the adjoint of ``divergence``."""
        return [
            self._unpad(_padded(pressure, i + 1, True, True).diff(dim=i + 1) / h, i)
            for i, h in enumerate(self.grid.spacing)
        ]

    def _unpad(self, face: Tensor, axis: int) -> Tensor:
        low, high = self.open[axis]
        return face.narrow(axis + 1, int(not low), face.shape[axis + 1] - (not low) - (not high))


def conjugate_gradients(operator: Callable[[Tensor], Tensor], wanted: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """The solution x of A x = b, A symmetric, positive semi-definite, b in its range; x and b (batch, entry).

    Each row stops at |b − A x| <= max(``TOLERANCE`` |b|, floor).
    """
    limit = torch.maximum(TOLERANCE * wanted.norm(dim=1), torch.as_tensor(floor)).square()
    x, residual = torch.zeros_like(wanted), wanted
    direction, square = residual, residual.square().sum(1)
    for _ in range(wanted.shape[1]):
        going = square > limit
        if not bool(going.any()):
            break
        image = operator(direction)
        curvature = (direction * image).sum(1)
        step = torch.where(going & (curvature > 0), square / curvature.clamp_min(1e-300), 0.0)[:, None]
        x, residual = x + step * direction, residual - step * image
        previous, square = square, torch.where(going, residual.square().sum(1), square)
        direction = residual + (square / previous.clamp_min(1e-300))[:, None] * direction
    return x


def _padded(x: Tensor, axis: int, low: bool, high: bool, value: float = 0.0) -> Tensor:
    return pad(x, [0, 0] * (x.ndim - 1 - axis) + [int(low), int(high)], value=value)
