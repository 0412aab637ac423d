"""Projections by name, as configs and saved surrogates write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.projection import CurlFree, DivergenceFree, Positive, PreserveMean, Projection
from cliffsteer.suggestions import suggestion

PROJECTIONS: dict[str, Callable[[FieldSpec, Grid, str], Projection]] = {
    "divergence_free": DivergenceFree,
    "divergence_free_staggered": lambda spec, grid, field: DivergenceFree(spec, grid, field, staggered=True),
    "curl_free": CurlFree,
    "preserve_mean": lambda spec, grid, field: PreserveMean(spec, field),
    "positive": lambda spec, grid, field: Positive(spec, field),
}
"""Laws, by name; "divergence_free_staggered" is for velocities averaged from faces on a periodic grid."""


def create_projections(descriptions: Sequence[str], spec: FieldSpec, grid: Grid) -> nn.ModuleList:
    """Projections from their descriptions, to be applied in this order.

    Args:
        descriptions: "law:field" for each, a law of `PROJECTIONS` and a dynamic field, as in
            "divergence_free:velocity".
        spec: the fields.
        grid: their grid.

    Raises:
        ValueError: an unknown law or field, or a law that does not fit the field or the grid.

    Example:
        >>> from cliffsteer.solvers import create
        >>> solver = create("smoke", resolution=16)
        >>> create_projections(["divergence_free:velocity", "positive:density"], solver.spec, solver.grid)
        ModuleList(
          (0): DivergenceFree(velocity)
          (1): Positive(density)
        )
    """
    found = []
    for description in descriptions:
        law, colon, field = str(description).partition(":")
        if law not in PROJECTIONS:
            hint = suggestion(law, PROJECTIONS) or ";"
            raise ValueError(f"`projections` (={description!r}) is unknown{hint} laws: {', '.join(PROJECTIONS)}.")
        names = [f.name for f in spec.dynamic]
        if not colon or field not in names:
            hint = suggestion(field, names) if colon else ";"
            raise ValueError(
                f"`projections` (={description!r}) names no dynamic field{hint or ';'} write it as law:field, with a"
                f" field of {', '.join(names)}."
            )
        found.append(PROJECTIONS[law](spec, grid, field))
    return nn.ModuleList(found)
