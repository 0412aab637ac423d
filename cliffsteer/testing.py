"""Public helpers to test layers, networks, Steppers and simulators, in this package and in plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.conformance import check_solver
from cliffsteer.grid import Grid
from cliffsteer.symmetry import SignedPermutation, lattice_symmetries

__all__ = ["assert_equivariant", "check_solver", "equivariance_errors"]

Map = Callable[[Tensor], Tensor]


def equivariance_errors(
    function: Map, x: Tensor, algebra: CliffordAlgebra, elements: Iterable[SignedPermutation | Tensor], axis: int = 2
) -> Iterator[tuple[SignedPermutation | Tensor, float]]:
    """For each group element g the relative error of a map of multivector fields.

    ‖f(gx) - g f(x)‖ / max(‖f(x)‖, ‖g f(x)‖): boosts can make g f(x) much larger than f(x), and its rounding with it.

    Args:
        function: the map; input and output have blades on ``axis``, and on it one or more multivectors.
        x: its input, (batch, channel or time, blade, *grid), or without grid axes for matrices.
        algebra: the algebra.
        elements: SignedPermutations, which also move the grid, or orthogonal matrices (n, n), which turn blades only.
        axis: the blade axis.

    Yields:
        (element, error).
    """
    with torch.no_grad():
        reference = function(x)
        for g in elements:
            turned = _act(g, algebra, reference, axis)
            error = (function(_act(g, algebra, x, axis)) - turned).norm()
            yield g, float(error / torch.maximum(reference.norm(), turned.norm())) if error != 0 else 0.0


def assert_equivariant(
    function: Map,
    x: Tensor,
    algebra: CliffordAlgebra,
    *,
    group: str | Iterable[SignedPermutation | Tensor] = "lattice",
    grid: Grid | None = None,
    tolerance: float | None = None,
    samples: int = 8,
    generator: torch.Generator | None = None,
    axis: int = 2,
) -> float:
    """Assert that a map of multivector fields commutes with a group, and return the largest relative error.

    Args:
        function: the map, e.g. a layer, a network or ``stepper.step``.
        x: an input, random for a meaningful test; its dtype is the precision of the test.
        algebra: the algebra.
        group: "lattice": all signed permutations of grid axes that keep the metric and the axes' lengths, moving
            grid and blades; "orthogonal": random elements of O(p, q) acting on blades alone, for layers without a
            grid; or the elements themselves.
        grid: restrict the lattice's symmetries to those of this grid (spacing and boundary too).
        tolerance: largest relative error; default 1e-12 in float64 and 1e-5 in float32 for "lattice", 1e-10 and 1e-3
            for random (boosted, so larger) elements.
        samples: number of random elements for "orthogonal".
        generator: source of the random elements.
        axis: the blade axis.

    Raises:
        AssertionError: the error exceeds the tolerance, or is not a number; the message names the worst element.
        ValueError: an unknown group.

    Example:
        >>> from cliffsteer.nn import MVGELU
        >>> algebra = CliffordAlgebra((1, -1))
        >>> x = torch.randn(2, 3, 4, dtype=torch.float64)
        >>> assert_equivariant(MVGELU(), x, algebra, group="orthogonal") < 1e-12
        True
    """
    double = x.dtype == torch.float64
    if group == "lattice":
        shape = grid or Grid(tuple(x.shape[x.ndim - algebra.dim :]))
        elements: Iterable[SignedPermutation | Tensor] = lattice_symmetries(algebra, shape)
        limit = 1e-12 if double else 1e-5
    elif group == "orthogonal":
        elements = [algebra.random_orthogonal(generator).to(x) for _ in range(samples)]
        limit = 1e-10 if double else 1e-3
    elif isinstance(group, str):
        raise ValueError(f"`group` (={group!r}) must be 'lattice', 'orthogonal' or an iterable of elements.")
    else:
        elements, limit = group, 1e-10 if double else 1e-3
    limit = limit if tolerance is None else tolerance
    worst, error, count = None, 0.0, 0
    for g, value in equivariance_errors(function, x, algebra, elements, axis):
        count += 1
        if not value <= error:
            worst, error = g, value
        if error != error:  # not a number
            break
    if not count:
        raise AssertionError("`group` holds no element: nothing was tested.")
    if not error <= limit:
        raise AssertionError(f"not equivariant: relative error {error:.2e} > {limit:.0e} under {worst}")
    return error


def _act(g: SignedPermutation | Tensor, algebra: CliffordAlgebra, x: Tensor, axis: int) -> Tensor:
    if isinstance(g, SignedPermutation):
        return g.act(algebra, x, axis)
    parts = x.unflatten(axis, (-1, algebra.n_blades))
    return algebra.apply_matrix(g, parts, axis % x.ndim + 1).flatten(axis % x.ndim, axis % x.ndim + 1)
