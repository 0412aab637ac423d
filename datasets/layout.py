"""Where the fields of a system live in a file of The Well's layout.

    grade 0, grade n          t0_fields/<name>, shape (trajectory, time, *grid)
    grade 1                   t1_fields/<name>, shape (trajectory, time, *grid, n): component i on basis vector i
    grade n-1, n > 2          t1_fields/<name>: component i is (-1)^i times the blade that lacks basis vector i, so that
                              a bivector in space reads as its axial vector: e23, -e13, e12
    any other (bivectors      t0_fields/<name>_<blade>, one dataset per blade, e.g. faraday_e12
    of four dimensions)
    parameters                scalars/<name>, or scalars/<name>_<blade> when there are several components; (trajectory,)

In one dimension grade 1 counts as a vector. Source: Ohana et al., "The Well: a large-scale collection of diverse
physics simulations for machine learning" (2024), and its data format page.
"""

from __future__ import annotations

from dataclasses import dataclass

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.fields import Field, FieldSpec

AXES = ("x", "y", "z", "w")
"""Names of the grid axes, in order, whatever their meaning: time comes first on R^{1,2}, and is called x there."""

WELL_BOUNDARY = {"periodic": "PERIODIC", "slip": "WALL", "no_slip": "WALL", "conductor": "WALL", "open": "OPEN"}
"""The Well's name for each kind of boundary of ``Grid``."""


@dataclass(frozen=True)
class Place:
    """One HDF5 dataset and the blades it holds.

    Args:
        group, name: where it is.
        field: the field it belongs to.
        blades: positions on the packed blade axis, one per stored component.
        signs: +1 or -1 for each of them: stored = sign · blade.
        labels: the same for people, e.g. ``("e23", "-e13", "e12")``.
        vector: whether the dataset has a component axis (the last).
    """

    group: str
    name: str
    field: Field
    blades: tuple[int, ...]
    signs: tuple[int, ...]
    labels: tuple[str, ...]
    vector: bool


def frame_places(spec: FieldSpec) -> tuple[Place, ...]:
    """The datasets that hold the dynamic fields.

    Raises:
        ValueError: a field name that HDF5 cannot take, or two fields that would share a dataset.
    """
    places: list[Place] = []
    for field in spec.dynamic:
        if is_vector(spec.algebra, field.grade):
            places.append(_vector(spec, field))
        else:
            places += _components(spec, field, "t0_fields")
    return _checked(places)


def parameter_places(spec: FieldSpec) -> tuple[Place, ...]:
    """The datasets that hold the parameter fields; errors as ``frame_places``."""
    return _checked([place for field in spec.parameters for place in _components(spec, field, "scalars")])


def is_vector(algebra: CliffordAlgebra, grade: int) -> bool:
    """Whether a field of this grade is stored as a vector, with one component for each axis."""
    return grade == 1 or (grade == algebra.dim - 1 and algebra.dim > 2)


def component_order(algebra: CliffordAlgebra, grade: int) -> tuple[list[int], list[int]]:
    """For each component of a field as people count them, its blade (counted within the grade) and its sign.

    Component i of an axial vector, of grade n − 1 > 1, is (−1)^i times the blade that lacks basis vector i; of any
    other grade the components are the blades, in order.
    """
    blades = algebra.blades[algebra.grade_slice(grade)]
    if grade == 1 or not is_vector(algebra, grade):
        return list(range(len(blades))), [1] * len(blades)
    order = [next(j for j, blade in enumerate(blades) if i not in blade) for i in range(algebra.dim)]
    return order, [(-1) ** i for i in range(algebra.dim)]


def _vector(spec: FieldSpec, field: Field) -> Place:
    algebra, slot = spec.algebra, spec.slots[field.name]
    order, signs = component_order(algebra, field.grade)
    names = algebra.blade_names[algebra.grade_slice(field.grade)]
    labels = tuple(("-" if sign < 0 else "") + names[j] for j, sign in zip(order, signs, strict=True))
    return Place("t1_fields", field.name, field, tuple(slot.start + j for j in order), tuple(signs), labels, True)


def _components(spec: FieldSpec, field: Field, group: str) -> list[Place]:
    slot = spec.slots[field.name]
    labels = spec.algebra.blade_names[spec.algebra.grade_slice(field.grade)]
    names = [field.name] if slot.size == 1 else [f"{field.name}_{label}" for label in labels]
    return [Place(group, name, field, (slot.start + j,), (1,), (labels[j],), False) for j, name in enumerate(names)]


def _checked(places: list[Place]) -> tuple[Place, ...]:
    owners: dict[str, str] = {}
    for place in places:
        if not place.name or "/" in place.name or "\0" in place.name or place.name.strip(".") == "":
            raise ValueError(
                f"Field name {place.field.name!r} cannot name an HDF5 dataset: use letters, digits and '_'."
            )
        if place.name in owners:
            raise ValueError(
                f"Fields {owners[place.name]!r} and {place.field.name!r} would both be stored as {place.name!r}: rename"
                " one of them."
            )
        owners[place.name] = place.field.name
    return tuple(places)
