"""The Clifford algebra Cl(p, q) of R^{p,q}: blades, products, involutions, versors and the action of O(p, q).

A multivector is a tensor with one axis of length ``2**n``, the *blade axis*; every function takes its position as
``axis`` (default: the last one; of two factors, that of the one with more axes) and broadcasts over all other axes.
Blades are ordered by grade, then lexicographically: 1, e1, e2, e3, e12, e13, e23, e123. The multiplication table is
that of the ``clifford`` package.

Because a product of two blades is ± one blade, a table of n_blades² signs is all a product needs:

    (ab)_j = Σ_i  sign[i, j] · a_i · b_{right[i, j]}

and wedge and contractions are the same sum over fewer terms.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

MAX_DIM = 4


class CliffordAlgebra:
    """Clifford algebra of R^{p,q} for any order of signs: ``CliffordAlgebra((1, -1, -1))`` is R^{1,2}, time first.

    Two algebras of one signature are equal and share their tables; instances are immutable and cheap to copy.

    Args:
        signature: e_i² for each basis vector, +1 or -1; one to four of them.

    Attributes:
        signature: the same, a tuple.
        dim: n = p + q.
        n_blades: 2**n.
        n_grades: n + 1.
        blades: for each blade its basis vectors, e.g. ``(0, 2)`` for e13.
        blade_names: ``("1", "e1", ...)``.
        grades: grade of each blade, a tuple.
        blade_squares: <~e_A e_A>_0 of each blade, the product of its basis vectors' signs.

    Raises:
        ValueError: a sign other than ±1, or fewer than one or more than four of them.

    Example:
        >>> algebra = CliffordAlgebra((1, 1))
        >>> e1, e2 = algebra.basis_vectors(torch.float64)
        >>> algebra.geometric_product(e1, e2)  # e12
        tensor([0., 0., 0., 1.], dtype=torch.float64)
    """

    def __init__(self, signature: Sequence[int]):
        signs = tuple(signature)
        if not 1 <= len(signs) <= MAX_DIM or any(s not in (1, -1) for s in signs):
            raise ValueError(
                f"`signature` (={signs}) must hold one to {MAX_DIM} signs, each +1 or -1, one per axis of the grid:"
                " (1, 1) is the Euclidean plane, (1, -1, -1) spacetime with time first."
            )
        self.signature = tuple(int(s) for s in signs)
        self.dim = len(signs)
        self.n_blades = 2**self.dim
        self.n_grades = self.dim + 1
        axes = range(self.dim)
        self.blades = tuple(itertools.chain(*(itertools.combinations(axes, k) for k in range(self.n_grades))))
        self.grades = tuple(len(blade) for blade in self.blades)
        self.blade_names = tuple("e" + "".join(str(i + 1) for i in b) if b else "1" for b in self.blades)
        self.blade_squares = tuple(math.prod(self.signature[i] for i in blade) for blade in self.blades)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CliffordAlgebra) and self.signature == other.signature

    def __hash__(self) -> int:
        return hash(self.signature)

    def __repr__(self) -> str:
        return f"CliffordAlgebra({self.signature})"

    def __reduce__(self):
        return CliffordAlgebra, (self.signature,)

    # ------------------------------------------------------------------------------------------------ blades

    @property
    def is_definite(self) -> bool:
        """True when all signs agree, so that x² = 0 only for x = 0."""
        return len(set(self.signature)) == 1

    @functools.cached_property
    def cayley(self) -> Tensor:
        """Multiplication table, shape (left, out, right), float64: (ab)_j = Σ_ik a_i cayley[i, j, k] b_k."""
        return torch.from_numpy(_cayley(self.signature).copy())

    @functools.cached_property
    def paths(self) -> tuple[tuple[int, int, int], ...]:
        """Grade triples (left, out, right) that the geometric product connects, in lexicographic order."""
        grades = self.grades
        return tuple(sorted({(grades[i], grades[j], grades[k]) for i, j, k in np.argwhere(_cayley(self.signature))}))

    def grade_slice(self, grade: int) -> slice:
        """The blades of one grade, contiguous in blade order.

        Raises:
            ValueError: the grade is not in 0..n.
        """
        self._check_grade(grade)
        return slice(self.grades.index(grade), self.grades.index(grade) + self.grades.count(grade))

    def grade_size(self, grade: int) -> int:
        """Number of blades of one grade, n choose k."""
        self._check_grade(grade)
        return self.grades.count(grade)

    def basis_vectors(self, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
        """The multivectors e1, ..., en."""
        return torch.eye(self.n_blades, dtype=dtype)[1 : self.dim + 1].unbind(0)

    def embed(self, x: Tensor, grade: int, axis: int = -1) -> Tensor:
        """Put the components of one grade (along ``axis``) into multivectors, zero elsewhere.

        Raises:
            ValueError: ``axis`` is not as long as the grade has blades.
        """
        part = self.grade_slice(grade)
        if x.shape[axis] != part.stop - part.start:
            raise ValueError(
                f"`x` has {x.shape[axis]} components on axis {axis}, but grade {grade} of {self} has"
                f" {part.stop - part.start}."
            )
        shape = list(x.shape)
        shape[axis] = self.n_blades
        out = x.new_zeros(shape)
        out.narrow(axis, part.start, part.stop - part.start).copy_(x)
        return out

    def grade(self, x: Tensor, grades: int | Sequence[int], axis: int = -1) -> Tensor:
        """Grade projection <x>_k: the multivector with all other grades zero."""
        keep = {grades} if isinstance(grades, int) else set(grades)
        for k in keep:
            self._check_grade(k)
        return x * self._along(axis, x, [float(g in keep) for g in self.grades])

    def components(self, x: Tensor, grade: int, axis: int = -1) -> Tensor:
        """Components of one grade: a view of ``x`` with ``axis`` cut to the grade's blades."""
        part = self.grade_slice(grade)
        self._check_axis("x", x, axis)
        return x.narrow(axis, part.start, part.stop - part.start)

    # ---------------------------------------------------------------------------------------------- products

    def geometric_product(self, a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
        """Geometric product ab."""
        return self._product("geometric", a, b, axis)

    def wedge(self, a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
        """Exterior product a ∧ b = Σ_rs <<a>_r <b>_s>_{r+s}."""
        return self._product("wedge", a, b, axis)

    def left_contraction(self, a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
        """Left contraction a ⌋ b = Σ_rs <<a>_r <b>_s>_{s-r} (Dorst, "The inner products of...", 2002)."""
        return self._product("left", a, b, axis)

    def right_contraction(self, a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
        """Right contraction a ⌊ b = Σ_rs <<a>_r <b>_s>_{r-s}."""
        return self._product("right", a, b, axis)

    def scalar_product(self, a: Tensor, b: Tensor, axis: int = -1) -> Tensor:
        """<~a b>_0 = Σ_A Q_A a_A b_A, the extended bilinear form; ``axis`` is kept with length 1."""
        self._check_axis("a", a, axis)
        self._check_axis("b", b, axis)
        like = a if a.ndim >= b.ndim else b
        return (a * b * self._along(axis, like, self.blade_squares)).sum(axis, keepdim=True)

    def dual(self, x: Tensor, axis: int = -1) -> Tensor:
        """Hodge dual ⋆x = ~x I, with I the unit pseudoscalar: changes sign under improper transformations."""
        axis = axis if axis < 0 else axis - x.ndim
        pseudoscalar = self._view(torch.eye(self.n_blades, dtype=x.dtype, device=x.device)[-1], axis, x.ndim)
        return self.geometric_product(self.reverse(x, axis), pseudoscalar, axis)

    # ------------------------------------------------------------------------------------------- involutions

    def reverse(self, x: Tensor, axis: int = -1) -> Tensor:
        """Reversion ~x: sign (-1)^{k(k-1)/2} on grade k, so ~(ab) = ~b ~a."""
        return x * self._along(axis, x, [(-1) ** (g * (g - 1) // 2) for g in self.grades])

    def involute(self, x: Tensor, axis: int = -1) -> Tensor:
        """Grade involution: sign (-1)^k on grade k, the action of x -> -x."""
        return x * self._along(axis, x, [(-1) ** g for g in self.grades])

    def conjugate(self, x: Tensor, axis: int = -1) -> Tensor:
        """Clifford conjugation: reversion and grade involution together."""
        return x * self._along(axis, x, [(-1) ** (g * (g + 1) // 2) for g in self.grades])

    # ------------------------------------------------------------------------------------------------- norms

    def quadratic_form(self, x: Tensor, axis: int = -1) -> Tensor:
        """q(x) = <~x x>_0 = Σ_A Q_A x_A², invariant under O(p, q); of any sign; ``axis`` is kept with length 1."""
        self._check_axis("x", x, axis)
        return (x.square() * self._along(axis, x, self.blade_squares)).sum(axis, keepdim=True)

    def quadratic_forms(self, x: Tensor, axis: int = -1) -> Tensor:
        """The quadratic form of each grade, q(<x>_k); ``axis`` then has length n + 1."""
        self._check_axis("x", x, axis)
        squares = x.square() * self._along(axis, x, self.blade_squares)
        parts = squares.split([self.grade_size(k) for k in range(self.n_grades)], axis)
        return torch.cat([part.sum(axis, keepdim=True) for part in parts], axis)

    def norm(self, x: Tensor, axis: int = -1) -> Tensor:
        """sqrt(|q(x)|); ``axis`` is kept with length 1. Zero, without a finite gradient, for null multivectors."""
        return self.quadratic_form(x, axis).abs().sqrt()

    # ----------------------------------------------------------------------------------- versors and actions

    def versor(self, vectors: Tensor) -> Tensor:
        """The versor v_1 v_2 ... v_m, a product of vectors.

        Args:
            vectors: shape (..., m, n), none of them null.

        Returns:
            Multivectors, shape (..., n_blades), of unit norm.

        Raises:
            ValueError: the last axis is not n, or a vector is null and has no inverse.
        """
        if vectors.ndim < 2 or vectors.shape[-1] != self.dim:
            raise ValueError(f"`vectors` has shape {tuple(vectors.shape)}, expected (..., m, {self.dim}).")
        multivectors = self.embed(vectors, 1)
        q = self.quadratic_form(multivectors).abs()
        if bool((q <= 16 * torch.finfo(vectors.dtype).eps * vectors.square().sum(-1, keepdim=True)).any()):
            raise ValueError("`vectors` holds a null vector (v² = 0): it has no inverse, so it makes no versor.")
        factors = (multivectors / q.sqrt()).unbind(-2)
        return functools.reduce(self.geometric_product, factors)

    def versor_action(self, versor: Tensor, x: Tensor, axis: int = -1) -> Tensor:
        """Action of a versor on multivectors: w x̂ w⁻¹, x̂ the grade involution of x for odd versors, x for even ones.

        It is an automorphism of the algebra and keeps grades. Source: Ruhe et al., "Clifford group equivariant
        neural networks" (2023), section 3.

        Args:
            versor: shape (..., n_blades), blade axis last; broadcast against ``x`` with its blade axis last.
            x: multivectors.
            axis: blade axis of ``x``.
        """
        x = x.movedim(axis, -1)
        parity = torch.as_tensor([1.0 if g % 2 else 0.0 for g in self.grades], dtype=versor.dtype, device=versor.device)
        odd = (versor.square() * parity).sum(-1, keepdim=True) > 0.5 * versor.square().sum(-1, keepdim=True)
        inverse = self.reverse(versor) / self.quadratic_form(versor)
        turned = torch.where(odd, self.involute(x), x)
        return self.geometric_product(self.geometric_product(versor, turned), inverse).movedim(-1, axis)

    def versor_matrix(self, versor: Tensor) -> Tensor:
        """The orthogonal matrix of a versor: column i is the image of e_i; shape (..., n, n)."""
        basis = torch.eye(self.n_blades, dtype=versor.dtype, device=versor.device)[1 : self.dim + 1]
        return self.versor_action(versor.unsqueeze(-2), basis)[..., 1 : self.dim + 1].transpose(-1, -2)

    def outermorphism(self, matrix: Tensor) -> Tensor:
        """The outermorphism ρ(g) of a linear map g: ρ(g)(a ∧ b) = ρ(g)a ∧ ρ(g)b; entries are minors of ``matrix``.

        Args:
            matrix: shape (..., n, n); orthogonal for an equivariant action, but any linear map is accepted.

        Returns:
            Shape (..., n_blades, n_blades), block-diagonal by grade.

        Raises:
            ValueError: the matrix is not n × n.
        """
        if matrix.ndim < 2 or matrix.shape[-2:] != (self.dim, self.dim):
            raise ValueError(f"`matrix` has shape {tuple(matrix.shape)}, expected (..., {self.dim}, {self.dim}).")
        rho = matrix.new_zeros(*matrix.shape[:-2], self.n_blades, self.n_blades)
        rho[..., 0, 0] = 1
        for (i, rows), (j, columns) in itertools.product(enumerate(self.blades), repeat=2):
            if rows and len(rows) == len(columns):
                rho[..., i, j] = _determinant(matrix[..., list(rows), :][..., list(columns)])
        return rho

    def apply_matrix(self, matrix: Tensor, x: Tensor, axis: int = -1) -> Tensor:
        """Act on multivectors by the outermorphism of ``matrix`` (n, n)."""
        self._check_axis("x", x, axis)
        rho = self.outermorphism(matrix)
        return torch.tensordot(rho, x, dims=([1], [axis % x.ndim])).movedim(0, axis)

    def is_orthogonal(self, matrix: Tensor, tolerance: float = 1e-8) -> bool:
        """Whether gᵀ η g = η with η = diag(signature), relative to the size of g."""
        metric = torch.diag(torch.tensor(self.signature, dtype=matrix.dtype, device=matrix.device))
        scale = float(matrix.abs().max()) ** 2
        return bool(((matrix.mT @ metric @ matrix - metric).abs() <= tolerance * max(scale, 1.0)).all())

    def random_versor(self, generator: torch.Generator | None = None, count: int | None = None) -> Tensor:
        """A random versor of unit norm, float64: a product of ``count`` vectors (default: 1 to n, at random).

        Null and nearly null vectors are rejected (|v²| > 0.3 |v|²), so boosts stay moderate (rapidity below 2 each).
        """
        if count is None:
            count = int(torch.randint(1, self.dim + 1, (), generator=generator))
        vectors: list[Tensor] = []
        while len(vectors) < count:
            v = torch.randn(self.dim, generator=generator, dtype=torch.float64)
            q = (v.square() * torch.tensor(self.signature)).sum()
            if abs(q) > 0.3 * v.square().sum():
                vectors.append(v)
        return self.versor(torch.stack(vectors))

    def random_orthogonal(self, generator: torch.Generator | None = None) -> Tensor:
        """A random element of O(p, q), float64, shape (n, n): the matrix of a random versor."""
        return self.versor_matrix(self.random_versor(generator))

    # ----------------------------------------------------------------------------------------------- private

    def _product(self, kind: str, a: Tensor, b: Tensor, axis: int) -> Tensor:
        """Σ_i a_i (sign[i, :] b[right[i, :]]) over left blades i, skipping those without a term."""
        ndim = max(a.ndim, b.ndim)
        axis = axis if axis < 0 else axis - ndim
        self._check_axis("a", a, axis)
        self._check_axis("b", b, axis)
        dtype = torch.promote_types(a.dtype, b.dtype)
        out: Tensor | None = None
        for i, (right, sign) in enumerate(_product_rows(self.signature, kind)):
            if not any(sign):
                continue
            index = torch.tensor(right, device=b.device)
            factor = self._view(torch.tensor(sign, dtype=dtype, device=b.device), axis, ndim)
            term = a.narrow(axis, i, 1) * (b.index_select(axis, index) * factor)
            out = term if out is None else out + term
        assert out is not None
        return out

    def _along(self, axis: int, like: Tensor, values: Sequence[float]) -> Tensor:
        """Per-blade constants shaped to broadcast along ``axis`` of ``like``."""
        self._check_axis("x", like, axis)
        return self._view(torch.tensor(values, dtype=like.dtype, device=like.device), axis, like.ndim)

    @staticmethod
    def _view(values: Tensor, axis: int, ndim: int) -> Tensor:
        trailing = -1 - axis if axis < 0 else ndim - 1 - axis
        return values.view(-1, *[1] * trailing)

    def _check_axis(self, name: str, x: Tensor, axis: int) -> None:
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != self.n_blades:
            raise ValueError(
                f"`{name}` has shape {tuple(x.shape)}: axis {axis} is the blade axis of {self} and must have length"
                f" {self.n_blades}; name another with `axis`."
            )

    def _check_grade(self, grade: int) -> None:
        if not 0 <= grade <= self.dim:
            raise ValueError(f"`grade` (={grade}) must be in 0..{self.dim} for {self}.")


@functools.cache
def _cayley(signature: tuple[int, ...]) -> np.ndarray:
    """Dense table (left, out, right) from the `clifford` package, whose blade order is ours."""
    import clifford  # heavy (numba): only when a product is first needed

    threads = torch.get_num_threads()
    table = np.asarray(clifford.Layout(list(signature)).gmt.todense(), dtype=np.float64)
    torch.set_num_threads(threads)  # numba has set them anew, for torch as well
    return table


@functools.cache
def _product_rows(signature: tuple[int, ...], kind: str) -> tuple[tuple[list[int], list[float]], ...]:
    """For each left blade i: the right blade and the sign that contribute to each output blade j."""
    table = _cayley(signature)
    grades = CliffordAlgebra(signature).grades
    keep = {
        "geometric": lambda left, out, right: True,
        "wedge": lambda left, out, right: out == left + right,
        "left": lambda left, out, right: out == right - left,
        "right": lambda left, out, right: out == left - right,
    }[kind]
    rows = []
    for i, plane in enumerate(table):
        right = np.abs(plane).argmax(axis=1)
        sign = [float(plane[j, k]) if keep(grades[i], grades[j], grades[k]) else 0.0 for j, k in enumerate(right)]
        rows.append(([int(k) for k in right], sign))
    return tuple(rows)


def _determinant(minor: Tensor) -> Tensor:
    """Determinant by the Leibniz sum: exact for signed permutations, differentiable, at most 24 terms."""
    size = minor.shape[-1]
    return sum(
        sign * torch.stack([minor[..., r, c] for r, c in enumerate(p)]).prod(0) for p, sign in _permutations(size)
    )


def _permutations(size: int) -> Iterator[tuple[tuple[int, ...], int]]:
    for p in itertools.permutations(range(size)):
        inversions = sum(p[a] > p[b] for a, b in itertools.combinations(range(size), 2))
        yield p, (-1) ** inversions
