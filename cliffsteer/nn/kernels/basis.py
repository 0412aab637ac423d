"""All O(p, q)-steerable kernels between multivector fields: 4n equivariant maps times functions of the invariant q(x).

At x ≠ 0 the linear maps Cl -> Cl that commute with the stabiliser of x are spanned by

    f ↦ <f>_k              grades 0..n       degree 0 in x
    f ↦ x ∧ <f>_k          grades 0..n-1     degree 1
    f ↦ x ⌋ <f>_k          grades 1..n       degree 1
    f ↦ x ∧ (x ⌋ <f>_k) - (k/n) q(x) <f>_k    grades 1..n-1    degree 2

4n in all, and at x = 0 by the n + 1 identities alone. The last are written trace-free, so that all maps are orthogonal
to each other in the Frobenius product. A steerable kernel is K(x) = Σ_b r_b(x) M_b(x), r_b constant on orbits of the
group, so one value per map and orbit is a complete parametrisation on a lattice.

Groups:

* "O": the full O(p, q); orbits are the values of q, and the light cone without its tip is one of its own.
* "SO": no reflections (parity-breaking physics: rotating or charged fluids, chiral media): 8n maps, each also followed
  by the Hodge dual.
* "orthochronous": O(p, q) without time reversal, where one axis differs from all others in sign: the future and
  the past cone are different orbits: a kernel can be causal.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.kernels.lattice import integer_offsets

GROUPS = ("O", "SO", "orthochronous")


@dataclass(frozen=True, eq=False)
class KernelBasis:
    """The equivariant maps on the points of a lattice, and the lattice's orbits.

    Attributes:
        algebra, kernel_size, group: what it was built for.
        offsets: points in cells, int64, (points, dim).
        maps: M_b at each point (offset / radius), float64, (maps, out blade, in blade, points).
        degrees: degree in x of each map.
        orbit: orbit of each point, int64, (points,); orbit 0 is the origin.
        q: q(x) of each orbit in units of radius², float64, exact on the light cone.
        side: sign of time of each orbit for "orthochronous": +1 future, -1 past, 0 spacelike or origin; else zeros.
        counts: points per orbit.
    """

    algebra: CliffordAlgebra
    kernel_size: int
    group: str
    offsets: Tensor
    maps: Tensor
    degrees: tuple[int, ...]
    orbit: Tensor
    q: Tensor
    side: Tensor
    counts: Tensor

    @property
    def n_maps(self) -> int:
        """Number of maps, 4n or 8n."""
        return len(self.degrees)

    @property
    def n_orbits(self) -> int:
        """Number of orbits, the origin included."""
        return len(self.q)


@functools.lru_cache(maxsize=64)
def kernel_basis(algebra: CliffordAlgebra, kernel_size: int, group: str = "O") -> KernelBasis:
    """The basis on the points of a k^n kernel (shared: treat it as constant).

    Raises:
        ValueError: an unknown group, or "orthochronous" where no axis is time.
    """
    if group not in GROUPS:
        raise ValueError(f"`group` (={group!r}) must be one of {', '.join(map(repr, GROUPS))}.")
    offsets = integer_offsets(algebra.dim, kernel_size)
    radius = max(kernel_size // 2, 1)
    q = (offsets.square() * torch.tensor(algebra.signature)).sum(1)
    side = torch.zeros(len(offsets), dtype=torch.long)
    if group == "orthochronous":
        axis = time_axis(algebra)
        side = torch.where(q * algebra.signature[axis] >= 0, offsets[:, axis].sign(), side)
    keys = torch.stack([offsets.any(1).long(), q, side], 1)
    values, orbit, counts = keys.unique(dim=0, return_inverse=True, return_counts=True)
    return KernelBasis(
        algebra=algebra,
        kernel_size=kernel_size,
        group=group,
        offsets=offsets,
        maps=equivariant_maps(algebra, (offsets.double() / radius).T, group),
        degrees=map_degrees(algebra, group),
        orbit=orbit,
        q=values[:, 1].double() / radius**2,
        side=values[:, 2],
        counts=counts,
    )


def equivariant_maps(algebra: CliffordAlgebra, x: Tensor, group: str = "O") -> Tensor:
    """The maps M_b(x) at any positions, shape (maps, out blade, in blade, points).

    Args:
        algebra: the algebra.
        x: positions, (dim, points).
        group: "O" and "orthochronous" have 4n maps, "SO" 8n.
    """
    grades = torch.tensor(algebra.grades)
    step = grades[:, None] - grades[None, :]
    multiply = torch.einsum("ijk,ip->jkp", algebra.cayley[1 : algebra.dim + 1].to(x), x)  # f ↦ x f
    wedge, contract = (multiply * (step == s).unsqueeze(-1) for s in (1, -1))
    both = torch.einsum("ijp,jkp->ikp", wedge, contract)
    q = (x.square() * torch.tensor(algebra.signature, dtype=x.dtype).unsqueeze(-1)).sum(0)
    identity = torch.eye(algebra.n_blades, dtype=x.dtype).unsqueeze(-1).expand_as(multiply)
    source = [(grades == k).view(1, -1, 1) for k in range(algebra.n_grades)]
    n = algebra.dim
    maps = [identity * source[k] for k in range(n + 1)]
    maps += [wedge * source[k] for k in range(n)]
    maps += [contract * source[k] for k in range(1, n + 1)]
    maps += [(both - k / n * q * identity) * source[k] for k in range(1, n)]
    stacked = torch.stack(maps)
    if group != "SO":
        return stacked
    dual = algebra.dual(torch.eye(algebra.n_blades, dtype=x.dtype)).T  # column: image of a blade
    return torch.cat([stacked, torch.einsum("ij,bjkp->bikp", dual, stacked)])


def map_degrees(algebra: CliffordAlgebra, group: str = "O") -> tuple[int, ...]:
    """Degree in x of each map, in the order of `equivariant_maps`."""
    n = algebra.dim
    degrees = (0,) * (n + 1) + (1,) * 2 * n + (2,) * (n - 1)
    return degrees * 2 if group == "SO" else degrees


def map_targets(algebra: CliffordAlgebra, group: str = "O") -> tuple[int, ...]:
    """Output grade of each map, in the order of `equivariant_maps`."""
    n = algebra.dim
    targets = (*range(n + 1), *range(1, n + 1), *range(n), *range(1, n))
    return targets + tuple(n - k for k in targets) if group == "SO" else targets


def time_axis(algebra: CliffordAlgebra) -> int:
    """The axis whose sign differs from all others (the first of R^{1,1}).

    Raises:
        ValueError: there is no such axis.
    """
    signs = algebra.signature
    for axis, sign in enumerate(signs):
        if len(signs) > 1 and all(s == -sign for i, s in enumerate(signs) if i != axis):
            return axis
    raise ValueError(f"`group` (='orthochronous') needs one axis of its own sign, time; {algebra} has none.")
