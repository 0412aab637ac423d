"""Whether two Steppers may be coupled: the same fields, grid and time step."""

from __future__ import annotations

import math

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import require_same_grid
from cliffsteer.stepper import Stepper


def require_same_system(solver: Stepper, surrogate: Stepper, name: str = "surrogate") -> None:
    """Raise a ValueError that names the first difference in fields, grid or time step.

    Args:
        solver: one of them.
        surrogate: the other.
        name: what the other is called in messages.
    """
    require_same_spec(solver.spec, surrogate.spec, name)
    require_same_grid(name, surrogate.grid, solver.grid)
    require_same_dt(solver, surrogate, name)


def require_same_dt(solver: Stepper, surrogate: Stepper, name: str = "surrogate") -> None:
    """Raise a ValueError unless both advance by the same time."""
    if not math.isclose(solver.dt, surrogate.dt, rel_tol=1e-9):
        raise ValueError(
            f"`solver` has dt {solver.dt:g} and `{name}` dt {surrogate.dt:g}: both must advance by the same"
            " time; wrap the one with the smaller dt in Repeated(stepper, times)."
        )


def require_same_spec(solver: FieldSpec, surrogate: FieldSpec, name: str = "surrogate") -> None:
    """Raise a ValueError that names the first field in which the two differ."""
    if solver.algebra != surrogate.algebra:
        raise ValueError(
            f"`solver` lives in {solver.algebra} and `{name}` in {surrogate.algebra}: both must have one signature."
        )
    ours, theirs = ({field.name: field for field in spec.fields} for spec in (solver, surrogate))
    for field in [*ours, *theirs]:
        if ours.get(field) != theirs.get(field):
            raise ValueError(
                f"`solver` and `{name}` differ in field {field!r}: {ours.get(field, 'absent')} against"
                f" {theirs.get(field, 'absent')}; both must have one field spec."
            )
    if solver != surrogate:
        raise ValueError(f"`solver` and `{name}` list their fields in different orders: {solver}, {surrogate}.")
