"""Constant tables of the spectral convolution: orbits of frequencies and the spectrum of the kernel's basis on them.

A steerable kernel K(gx) = ρ(g) K(x) ρ(g)⁻¹ on a periodic lattice has a spectrum with the same symmetry, under the
signed permutations g of the axes that have equal sign in the metric and equal length. So its values at one
representative ξ* of each orbit of frequencies are all there is to know:

    Y(gξ*) = ρ(g) K̂(ξ*) ρ(g)⁻¹ X(gξ*)

Odd grades are multiplied by i. Then K̂ is real, because -1 is one of the g: parts of K that keep the parity of the grade
are even in x, the others odd. Both ρ(g)⁻¹ and the factor i are signed permutations of the real numbers of a spectrum.

The smaller groups have kernels with a second part that obeys the same law up to a sign χ(g), det g for the dual maps of
"SO" and the sign of time for "orthochronous". It acts on X(gξ*) times χ(g), and times i if χ(-1) = -1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.kernels.basis import KernelBasis, kernel_basis, time_axis
from cliffsteer.symmetry import SignedPermutation

_BLOCK = 1 << 22  # frequencies · points handled at once while the tables are made


@dataclass(frozen=True)
class Term:
    """One entry of a product: blades (into, out) of the spectrum get sign · tables[table] @ radial[map]."""

    table: int
    into: int
    out: int
    sign: float
    map: int


@dataclass(frozen=True, eq=False)
class Product:
    """The spectrum between the blades of one parity in and of one parity out, made as one matrix product.

    Attributes:
        parities: of the blades in and out.
        tables: spectra of the monomials it needs on the kernel's orbits, (frequency orbit, table, kernel orbit).
        terms: which of them, times which map's radial values, go to which blades (positions among those of a parity).
    """

    parities: tuple[int, int]
    tables: Tensor
    terms: tuple[Term, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the kernel that transforms with a character χ.

    Attributes:
        products: what makes its spectrum.
        character: χ(g) for each gathered frequency, None where it is 1.
        turned: multiply by i.
    """

    products: tuple[Product, ...]
    character: Tensor | None = None
    turned: bool = False


@dataclass(frozen=True, eq=False)
class SpectralPlan:
    """How a half spectrum (blade, frequency, re/im) folds into orbits, and the basis' spectrum there.

    Rows of the folded spectrum are (parity of the grade, gathered frequency, re/im, blade of that parity). Frequencies
    are ordered by orbit, and orbits by their size, so that orbits of equal size form one batch of matrix products.

    Attributes:
        rows: where each row of the folded spectrum comes from, (parity, frequency · 2, blade).
        back: where each number of the half spectrum goes, (blade · frequency · 2,).
        signs: its sign, (blade · frequency · 2,).
        weights: 1 / points, twice for frequencies that stand for their negatives too, (frequency,).
        classes: (first orbit, number of orbits, frequencies in each).
        parts: the products that make the kernel's spectrum.
    """

    rows: Tensor
    back: Tensor
    signs: Tensor
    weights: Tensor
    classes: tuple[tuple[int, int, int], ...]
    parts: tuple[Part, ...]

    @property
    def n_orbits(self) -> int:
        """Number of orbits of frequencies."""
        return sum(number for _, number, _ in self.classes)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - plans live as long as their own cache
    def indices(self, batch: int) -> tuple[Tensor, Tensor]:
        """Sources of the folded rows in (batch, number of the half spectrum), and the way back."""
        each, half = torch.arange(batch, device=self.rows.device), self.rows.shape[2]
        rows = self.rows.unsqueeze(2) + (each * len(self.back)).unsqueeze(1)
        back = (self.back // half * batch + each.unsqueeze(1)) * half + self.back % half
        dtype = index_dtype(batch * len(self.back))
        return rows.flatten().to(dtype), back.flatten().to(dtype)


@functools.lru_cache(maxsize=64)
def plan_on(
    algebra: CliffordAlgebra,
    group: str,
    kernel_size: int,
    dilation: int,
    grid: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> SpectralPlan:
    """The plan with its tables in ``dtype`` on ``device`` (shared: treat it as constant)."""
    plan = _plan(algebra, group, kernel_size, dilation, grid)

    def to(t: Tensor) -> Tensor:
        return t.to(device, dtype if t.is_floating_point() else t.dtype)

    parts = []
    for part in plan.parts:
        products = tuple(replace(product, tables=to(product.tables)) for product in part.products)
        character = None if part.character is None else to(part.character)
        parts.append(Part(products, character, part.turned))
    tensors = (to(t) for t in (plan.rows, plan.back, plan.signs, plan.weights))
    return SpectralPlan(*tensors, plan.classes, tuple(parts))


@functools.lru_cache(maxsize=16)
def _plan(algebra: CliffordAlgebra, group: str, kernel_size: int, dilation: int, grid: tuple[int, ...]) -> SpectralPlan:
    half = frequencies(grid)
    representatives, axes, signs = _fold(algebra.signature, grid, half)
    reps, orbit, counts = np.unique(representatives, axis=0, return_inverse=True, return_counts=True)
    by_size = np.argsort(counts, kind="stable")
    rank = np.empty_like(by_size)
    rank[by_size] = np.arange(len(by_size))
    order = np.argsort(rank[orbit.reshape(-1)], kind="stable")  # frequencies, orbit after orbit
    elements, element = np.unique(np.concatenate([axes, signs], 1), axis=0, return_inverse=True)
    maps = [SignedPermutation(tuple(map(int, e[: algebra.dim])), tuple(map(int, e[algebra.dim :]))) for e in elements]
    rho = np.stack([algebra.outermorphism(g.matrix).numpy() for g in maps])
    element = element.reshape(-1)[order]
    source, sign = np.abs(rho).argmax(1)[element], rho.sum(1)[element]  # ρ(g)⁻¹ X: blade k is sign · X[source]

    odd = np.array(algebra.grades) % 2 == 1
    nf, real = len(half), np.arange(2).reshape(1, 2, 1)
    rows = (source[:, None] * nf + order[:, None, None]) * 2 + np.where(odd, 1 - real, real)
    signed = sign[:, None] * np.where(odd & (real == 0), -1, 1) * np.ones_like(rows)
    parity = np.argsort(odd, kind="stable")  # blades of even grade, then of odd grade
    rows, signed = (t.reshape(-1, 2, len(odd) // 2).swapaxes(0, 1) for t in (rows[..., parity], signed[..., parity]))
    back, at = np.empty(rows.size, np.int64), np.empty(rows.size)
    back[rows.reshape(-1)] = np.arange(rows.size)
    at[rows.reshape(-1)] = signed.reshape(-1)

    last = half[order, -1]
    doubled = np.where((last == 0) | (2 * last == grid[-1]), 1, 2) / math.prod(grid)
    sizes, first, number = np.unique(counts[by_size], return_index=True, return_counts=True)
    basis = kernel_basis(algebra, kernel_size, group)
    tables = _Tables(basis, reps[by_size], grid, dilation)
    parts = _parts(basis, tables, _characters(basis, maps, element))
    return SpectralPlan(
        rows=torch.from_numpy(rows.copy()),
        back=torch.from_numpy(back),
        signs=torch.from_numpy(at),
        weights=torch.from_numpy(doubled),
        classes=tuple((int(a), int(b), int(c)) for a, b, c in zip(first, number, sizes, strict=True)),
        parts=parts,
    )


def index_dtype(count: int) -> torch.dtype:
    """The smaller of the types that number ``count`` places."""
    return torch.int32 if count <= torch.iinfo(torch.int32).max else torch.int64


def frequencies(grid: Sequence[int]) -> np.ndarray:
    """Whole frequencies of a real transform's half spectrum, (frequency, dim), in its order."""
    axes = [np.fft.fftfreq(length, 1 / length).round().astype(np.int64) for length in grid[:-1]]
    return np.stack(np.meshgrid(*axes, np.arange(grid[-1] // 2 + 1), indexing="ij"), -1).reshape(-1, len(grid))


def _fold(signature: Sequence[int], grid: Sequence[int], half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each frequency its representative and the signed permutation g (axes, signs) that takes that one to it."""
    representatives, axes, signs = np.abs(half), np.empty_like(half), np.empty_like(half)
    kinds = list(zip(signature, grid, strict=True))
    for kind in set(kinds):
        alike = np.array([axis for axis, k in enumerate(kinds) if k == kind])
        order = np.argsort(-np.abs(half[:, alike]), axis=1, kind="stable")
        axes[:, alike] = alike[order]
        values = np.take_along_axis(half, alike[order], 1)
        representatives[:, alike] = np.abs(values)
        signs[:, alike] = np.where(values < 0, -1, 1)
    return representatives, axes, signs


def _characters(basis: KernelBasis, maps: Sequence[SignedPermutation], element: np.ndarray) -> Tensor | None:
    """χ(g) of the second part at each gathered frequency, None where the group has no such part."""
    if basis.group == "O":
        return None
    if basis.group == "SO":
        values = [float(torch.linalg.det(g.matrix).round()) for g in maps]
    else:
        axis = time_axis(basis.algebra)
        values = [float(g.signs[axis]) for g in maps]
    return torch.tensor(values, dtype=torch.float64)[torch.from_numpy(element)]


def _parts(basis: KernelBasis, tables: _Tables, character: Tensor | None) -> tuple[Part, ...]:
    """The parts of a kernel, by the law they obey."""
    n_maps = basis.n_maps
    every, turned = range(n_maps), basis.group == "orthochronous" or basis.algebra.dim % 2 == 1
    if basis.group == "O":
        return (Part(tables.products(every, False)),)
    first, second = (every[: n_maps // 2], every[n_maps // 2 :]) if basis.group == "SO" else (every, every)
    return Part(tables.products(first, False)), Part(tables.products(second, turned), character, turned)


class _Tables:
    """Spectra Σ_x m(x) cos θ·x and Σ_x m(x) sin θ·x, orbit by orbit, of the different entries m of the maps."""

    def __init__(self, basis: KernelBasis, reps: np.ndarray, grid: Sequence[int], dilation: int):
        self.basis = basis
        self.entries: dict[bytes, Tensor] = {}
        for values in basis.maps.flatten(0, 2):
            if values.any():
                self.entries.setdefault(*self._entry(values)[:2])
        self.spectra = self._transform(torch.from_numpy(reps), torch.tensor(grid), dilation)

    def products(self, maps: Sequence[int], turned: bool) -> tuple[Product, ...]:
        """The products for some of the maps; ``turned``: of the part of the spectrum that is imaginary."""
        grades = np.array(self.basis.algebra.grades) % 2
        place = np.where(grades == 1, np.cumsum(grades), np.cumsum(1 - grades)) - 1
        found: dict[tuple[int, int], dict[tuple[bytes, bool], list[tuple[int, int, float, int]]]] = {}
        for b in maps:
            for out, into in self.basis.maps[b].abs().amax(2).nonzero().tolist():
                key, _, sign = self._entry(self.basis.maps[b, out, into])
                sine = bool(grades[out] != grades[into]) != turned
                if grades[out] != grades[into] and (grades[out] > grades[into]) != turned:
                    sign = -sign
                uses = found.setdefault((int(grades[into]), int(grades[out])), {})
                uses.setdefault((key, sine), []).append((int(place[into]), int(place[out]), sign, b))
        return tuple(
            Product(
                parities=parities,
                tables=torch.stack([self.spectra[key] for key in uses], 1),
                terms=tuple(Term(t, *use) for t, group in enumerate(uses.values()) for use in group),
            )
            for parities, uses in found.items()
        )

    @staticmethod
    def _entry(values: Tensor) -> tuple[bytes, Tensor, float]:
        """A key for the values up to their sign, the values so that the first is positive, and that sign."""
        sign = float(values[values.nonzero()[0, 0]].sign())
        values = values * sign
        return (values * 1e9).round().long().numpy().tobytes(), values, sign

    def _transform(self, reps: Tensor, grid: Tensor, dilation: int) -> dict[tuple[bytes, bool], Tensor]:
        """The spectra, by entry and whether it is the sine, float64, (frequency orbit, kernel orbit)."""
        basis, blocks = self.basis, []
        for block in reps.split(max(_BLOCK // len(basis.orbit), 1)):
            cycles = basis.offsets[:, None] * dilation * block % grid  # whole numbers: exact at any size
            angle = 2 * math.pi * (cycles / grid.double()).sum(2)
            waves = torch.cat([angle.cos(), angle.sin()], 1)
            shape = (basis.n_orbits, waves.shape[1])
            blocks.append(
                [
                    waves.new_zeros(shape).index_add_(0, basis.orbit, waves * m[:, None]).view(shape[0], 2, -1)
                    for m in self.entries.values()
                ]
            )
        joined = (torch.cat(parts, 2) for parts in zip(*blocks, strict=True))
        return {(key, bool(k)): t[:, k].T for key, t in zip(self.entries, joined, strict=True) for k in (0, 1)}
