"""The point group of a lattice as tables: its elements, their products, and how they turn the weights of kernels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.kernels.basis import GROUPS, time_axis
from cliffsteer.symmetry import SignedPermutation, lattice_symmetries


@dataclass(frozen=True, eq=False)
class LatticeGroup:
    """Signed permutations of the axes that keep the metric, a finite subgroup G of O(p, q).

    Attributes:
        elements: the group's elements, the identity first.
        quotients: number of g⁻¹h among the elements, (g, h).
        mirrors: number of m_a h, with m_a the reflection of axis a, (axis, h); of h itself where m_a is not in G.
    """

    elements: tuple[SignedPermutation, ...]
    quotients: Tensor
    mirrors: Tensor

    def __len__(self) -> int:
        return len(self.elements)

    def cells(self, size: int) -> Tensor:
        """Where the point v of a kernel of ``size`` points along each axis comes from, g⁻¹v: (g, v), in C order."""
        dim = len(self.elements[0].axes)
        points = torch.arange(size**dim).view([size] * dim)
        return torch.stack([g.move(points).flatten() for g in self.elements])

    def blades(self, algebra: CliffordAlgebra) -> tuple[Tensor, Tensor]:
        """The blade that comes to each blade by ρ(g), (g, blade), and its sign; ρ(g) is a signed permutation."""
        rho = algebra.outermorphism(torch.stack([g.matrix for g in self.elements]))
        return rho.abs().argmax(2), rho.sum(2).float()


@functools.lru_cache(maxsize=64)
def lattice_group(algebra: CliffordAlgebra, group: str = "O") -> LatticeGroup:
    """The point group of the lattice of an algebra.

    Args:
        algebra: the algebra; 8 elements on the plane, 48 in space, 16 on R^{1,2}.
        group: "O" (all of them), "SO" (those of determinant 1) or "orthochronous" (those that keep the sign of time).

    Raises:
        ValueError: an unknown group, or "orthochronous" where no axis is time.
    """
    if group not in GROUPS:
        raise ValueError(f"`group` (={group!r}) must be one of {', '.join(map(repr, GROUPS))}.")
    with torch.device("cpu"):  # it is kept, whatever the device of the network that asks first
        return _lattice_group(algebra, group)


def _lattice_group(algebra: CliffordAlgebra, group: str) -> LatticeGroup:
    found = list(lattice_symmetries(algebra))
    if group == "SO":
        found = [g for g in found if g.matrix.det() > 0]
    elif group == "orthochronous":
        found = [g for g in found if g.signs[time_axis(algebra)] > 0]
    number = {g: i for i, g in enumerate(found)}
    quotients = [[number[_product(_inverse(g), h)] for h in found] for g in found]
    mirrors = []
    for axis in range(algebra.dim):
        mirror = SignedPermutation(tuple(range(algebra.dim)), tuple(-1 if i == axis else 1 for i in range(algebra.dim)))
        mirrors.append([number.get(_product(mirror, h), i) for i, h in enumerate(found)])
    return LatticeGroup(tuple(found), torch.tensor(quotients), torch.tensor(mirrors))


def turned(weight: Tensor, components: Tensor, cells: Tensor, signs: Tensor | None = None) -> Tensor:
    """Weights turned by every element of a group: (gW)_c(v) = s_gc W_{components[g, c]}(cells[g, v]).

    Args:
        weight: shape (out, in, component, point), real or complex.
        components: where each component comes from, (g, c).
        cells: where each point comes from, (g, v); as many points as are wanted.
        signs: of the components, (g, c); default all 1.

    Returns:
        Shape (out, in, g, c, v).
    """
    index = components.unsqueeze(2) * weight.shape[3] + cells.unsqueeze(1)
    flat = weight.flatten(2).gather(2, index.flatten().expand(*weight.shape[:2], -1))
    kernels = flat.unflatten(2, index.shape)
    return kernels if signs is None else kernels * signs.unsqueeze(2)


def _product(g: SignedPermutation, h: SignedPermutation) -> SignedPermutation:
    """The map x -> g(hx)."""
    signs = tuple(sign * g.signs[axis] for axis, sign in zip(h.axes, h.signs, strict=True))
    return SignedPermutation(tuple(g.axes[axis] for axis in h.axes), signs)


def _inverse(g: SignedPermutation) -> SignedPermutation:
    order = sorted(range(len(g.axes)), key=g.axes.__getitem__)
    return SignedPermutation(tuple(order), tuple(g.signs[i] for i in order))
