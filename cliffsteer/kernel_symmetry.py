"""Symmetries of a kernel that its lattice does not have: rotations by any angle, and boosts.

As a function of position a steerable kernel obeys K(gx) = ρ(g) K(x) ρ(g)⁻¹ for every g of its group. A layer knows only
its values on a lattice, in a box. How much of the symmetry is left there shows in its transfer function, the answer to
plane waves:

    K̂(κ) = Σ_v K(v) exp(iκ·v),        K̂(g⁻ᵀκ) = ρ(g) K̂(κ) ρ(g)⁻¹ up to the error of sampling

The orbits of rotations are compact, so that this error falls with the wavelength; those of boosts run along the light
cone out of any box, and a sampled layer keeps boosts badly.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.kernels import CompleteKernel, ImplicitKernel
from cliffsteer.nn.kernels.base import SteerableKernel
from cliffsteer.nn.kernels.basis import equivariant_maps, time_axis
from cliffsteer.nn.kernels.lattice import integer_offsets

ANGLE, RAPIDITY = math.radians(40.0), 0.5
"""Of the rotations and boosts in one plane, no symmetries of a lattice; rapidity 0.5 is 46 % of light speed."""


@dataclass(frozen=True, eq=False)
class Turn:
    """An element of the connected part of O(p, q).

    Attributes:
        name: what it does.
        kind: "rotation", "boost", or "mixed" for a product of several.
        matrix: (n, n), float64.
    """

    name: str
    kind: str
    matrix: Tensor


def turns(algebra: CliffordAlgebra) -> list[Turn]:
    """One rotation or boost in the plane of each pair of axes, and, of several, their product.

    Two axes of equal sign span a plane of rotations, two of different sign one of boosts.
    """
    found = []
    for i, j in itertools.combinations(range(algebra.dim), 2):
        if algebra.signature[i] == algebra.signature[j]:
            found.append(Turn(f"{math.degrees(ANGLE):.0f}° in e{i + 1}{j + 1}", "rotation", _turned(algebra, i, j)))
        else:
            found.append(Turn(f"boost {RAPIDITY:g} in e{i + 1}{j + 1}", "boost", _turned(algebra, i, j)))
    if len(found) > 1:
        product = functools.reduce(torch.matmul, [turn.matrix for turn in found])
        kinds = {turn.kind for turn in found}
        found.append(Turn("all of them", kinds.pop() if len(kinds) == 1 else "mixed", product))
    return found


def kernel_values(kernel: nn.Module) -> Tensor:
    """The values of a kernel module, shape (out_channels, out blade, in_channels, in blade, *k), on the CPU.

    Raises:
        ValueError: a module that is no kernel, or whose kernel depends on an input.
    """
    algebra = getattr(kernel, "algebra", None)
    if not isinstance(algebra, CliffordAlgebra):
        raise ValueError(f"`kernel` is a {type(kernel).__name__}, which has no `algebra`: give a kernel module.")
    if not is_fixed(kernel):
        raise ValueError(
            f"`kernel` is a {type(kernel).__name__}, whose values depend on its input: there is no one kernel to show."
        )
    with torch.no_grad():
        values = kernel().detach().cpu().double()
    return values.unflatten(1, (-1, algebra.n_blades)).unflatten(0, (-1, algebra.n_blades))


def is_fixed(kernel: nn.Module) -> bool:
    """Whether a kernel module takes no input, so that it stands for one kernel."""
    parameters = inspect.signature(kernel.forward).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in parameters)


def why_no_function(kernel: nn.Module) -> str | None:
    """Why a kernel has no values between the points of its lattice, a sentence; None when it has."""
    name = type(kernel).__name__
    if not is_fixed(kernel):
        return f"{name}: its values depend on the input, so there is no one kernel to measure."
    if getattr(kernel, "kernel_size", 0) == 1:
        return f"{name}: it has one point, the origin."
    if isinstance(kernel, ImplicitKernel):
        return None
    if isinstance(kernel, CompleteKernel):
        if kernel.radial_kind == "smooth":
            return None
        return f"{name}: its values are free on each orbit (radial 'orbit'), so they are defined on the lattice only."
    return f"{name}: it is not known as a function of position."


def kernel_at(kernel: SteerableKernel, x: Tensor) -> Tensor:
    """The kernel as a function: its values at any positions but the origin.

    Args:
        kernel: a complete kernel with smooth radial functions, or an implicit one.
        x: positions in units of the kernel's radius, shape (dim, points).

    Returns:
        Shape (points, out_channels · n_blades, in_channels · n_blades), in the precision of the kernel.

    Raises:
        ValueError: a kernel that is defined on its lattice only.
    """
    if reason := why_no_function(kernel):
        raise ValueError(f"`kernel` cannot be evaluated between its points. {reason}")
    algebra = kernel.algebra
    q = (x.square() * torch.tensor(algebra.signature, dtype=x.dtype).unsqueeze(-1)).sum(0)
    if isinstance(kernel, ImplicitKernel):
        kernel = copy.deepcopy(kernel)
        kernel.rounded_q = q.to(kernel.weight)
        radial = kernel.radial()
    else:
        side = torch.zeros_like(q)
        if kernel.group == "orthochronous":
            time = time_axis(algebra)
            side = torch.where(q * algebra.signature[time] >= 0, x[time].sign(), side)
        profile = kernel.profile_at(q, side).to(kernel.weight)
        radial = torch.einsum("pf,bf,bfoi->bpoi", profile, kernel.scale, kernel.weight)
    maps = equivariant_maps(algebra, x, kernel.group).to(radial)
    values = torch.einsum("bpoi,bklp->pokil", radial, maps)
    return values.flatten(3).flatten(1, 2)


def function_errors(
    kernel: SteerableKernel, elements: Sequence[Turn], points: int = 64, generator: torch.Generator | None = None
) -> list[float]:
    """Relative error of K(gx) = ρ(g) K(x) ρ(g)⁻¹ for each element, over random points, in float64.

    Args:
        kernel: as for `kernel_at`.
        elements: the elements g.
        points: number of points, drawn from the kernel's box; those next to the light cone are left out, where radial
            functions may jump.
        generator: source of the points.

    Raises:
        ValueError: as `kernel_at`.
    """
    kernel = copy.deepcopy(kernel).cpu().double()
    algebra = kernel.algebra
    x = 2 * torch.rand(algebra.dim, 16 * points, generator=generator, dtype=torch.float64) - 1
    q = (x.square() * torch.tensor(algebra.signature, dtype=x.dtype).unsqueeze(-1)).sum(0)
    x = x[:, q.abs() > 0.05 * x.square().sum(0)][:, :points]
    with torch.no_grad():
        here = kernel_at(kernel, x)
        return [
            _relative(kernel_at(kernel, g.matrix @ x), _conjugated(kernel.algebra, g.matrix, here)) for g in elements
        ]


def sampled_errors(
    kernel: nn.Module,
    elements: Sequence[Turn],
    wavelength: float = 8.0,
    waves: int = 64,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Relative error of K̂(g⁻ᵀκ) = ρ(g) K̂(κ) ρ(g)⁻¹ for each element, over random directions of κ, in float64.

    Args:
        kernel: a kernel module whose values do not depend on an input.
        elements: the elements g.
        wavelength: 2π / |κ|, in cells.
        waves: number of wave vectors.
        generator: source of their directions.

    Raises:
        ValueError: as `kernel_values`.
    """
    algebra: CliffordAlgebra = kernel.algebra
    values = kernel_values(kernel)
    flat = values.flatten(4).flatten(2, 3).flatten(0, 1)  # (out, in, points)
    offsets = integer_offsets(algebra.dim, values.shape[-1]).double()
    direction = torch.randn(algebra.dim, waves, generator=generator, dtype=torch.float64)
    kappa = 2 * math.pi / wavelength * direction / direction.norm(dim=0)

    def transfer(k: Tensor) -> Tensor:
        return torch.einsum("oip,pw->woi", flat.to(torch.complex128), torch.exp(1j * (offsets @ k)))

    here = transfer(kappa)
    return [
        _relative(transfer(_inverse(algebra, g.matrix).T @ kappa), _conjugated(algebra, g.matrix, here))
        for g in elements
    ]


# ---------------------------------------------------------------------------------------------------- private


def _turned(algebra: CliffordAlgebra, i: int, j: int) -> Tensor:
    matrix = torch.eye(algebra.dim, dtype=torch.float64)
    if algebra.signature[i] == algebra.signature[j]:
        matrix[i, i] = matrix[j, j] = math.cos(ANGLE)
        matrix[j, i], matrix[i, j] = math.sin(ANGLE), -math.sin(ANGLE)
    else:
        matrix[i, i] = matrix[j, j] = math.cosh(RAPIDITY)
        matrix[j, i] = matrix[i, j] = math.sinh(RAPIDITY)
    return matrix


def _inverse(algebra: CliffordAlgebra, matrix: Tensor) -> Tensor:
    """g⁻¹ = η gᵀ η."""
    metric = torch.diag(torch.tensor(algebra.signature, dtype=matrix.dtype))
    return metric @ matrix.T @ metric


def _conjugated(algebra: CliffordAlgebra, matrix: Tensor, kernel: Tensor) -> Tensor:
    """ρ(g) K ρ(g)⁻¹ on every pair of channels of (..., out, in)."""
    rho = algebra.outermorphism(matrix).to(kernel)
    inverse = algebra.outermorphism(_inverse(algebra, matrix)).to(kernel)
    parts = kernel.unflatten(-1, (-1, algebra.n_blades)).unflatten(-3, (-1, algebra.n_blades))
    return torch.einsum("ab,pobic,cd->poaid", rho, parts, inverse).reshape(kernel.shape)


def _relative(a: Tensor, b: Tensor) -> float:
    difference = float((a - b).norm())
    return difference / float(torch.maximum(a.norm(), b.norm())) if difference else 0.0
