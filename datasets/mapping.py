"""FieldMapping: which arrays of a foreign file are which multivector fields, declared in a few lines of YAML.

    velocity: vector                                        # the variable of that name, one component for each axis
    pressure: scalar
    B: bivector                                             # in space three components, read as an axial vector
    smoke: {grade: scalar, from: u, unit: kg/m^3}           # from a variable of another name
    wind: {grade: vector, from: [vx, vy], unit: m/s, at: faces}       # from one variable per component, staggered
    chemicals: {grade: scalar, from: "data[1]"}             # one component of a variable
    buoyancy: {grade: vector, from: [0, buo_y], role: parameter, unit: m/s^2}     # from constants and numbers

Components count along the axes of the grid, in their order. Those of an axial vector (grade n − 1 of more than two
dimensions, such as a magnetic field in space) are B_1 = B_23, B_2 = −B_13, B_3 = B_12; those of any other grade are its
blades in their order. ``at`` names the points of staggered components (``resample.STAGGERINGS``); they are averaged to
the cell centres.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.datasets.foreign import ForeignFile
from cliffsteer.datasets.layout import component_order
from cliffsteer.datasets.resample import STAGGERINGS, colocate
from cliffsteer.fields import Field, FieldSpec, Slot
from cliffsteer.grid import Grid
from cliffsteer.suggestions import question

GRADES = ("scalar", "vector", "bivector", "trivector", "pseudoscalar", "pseudovector")
_KEYS = ("grade", "from", "unit", "role", "at")
_COMPONENT = re.compile(r"(.+)\[(\d+)\]")


@dataclass(frozen=True)
class Entry:
    """One field of a mapping.

    Args:
        field: the field.
        sources: names of variables (or of constants, for a parameter) and numbers; one for all components together, or
            one for each.
        staggering: the points of its components; None for cell centres.
    """

    field: Field
    sources: tuple[str | float, ...]
    staggering: str | None = None


class FieldMapping:
    """Which variables are which fields.

    Args:
        declaration: for each field its grade, or a mapping with the keys grade, from, unit, role and at.
        signature: signs of the metric, one for each axis of the grid.

    Attributes:
        spec: the fields.
        entries: how each of them is read.

    Raises:
        ValueError: an unknown grade, key, role or staggering, or nothing declared.
    """

    def __init__(self, declaration: Mapping[str, Any], signature: Sequence[int]):
        if not declaration:
            raise ValueError(
                "`mapping` is empty: say what the variables are, as in mapping={velocity:vector,u:scalar}."
            )
        algebra = CliffordAlgebra(signature)
        self.entries = tuple(_entry(str(name), value, algebra) for name, value in declaration.items())
        self.spec = FieldSpec(signature, [entry.field for entry in self.entries])

    def check(self, file: ForeignFile) -> None:
        """Raise a ValueError unless the file has everything that the mapping takes from it, in fitting shapes."""
        dim = self.spec.algebra.dim
        if len(file.shape) != dim:
            raise ValueError(f"`signature` has {dim} signs, but {file.path} has {len(file.shape)} axes: {file.shape}.")
        for entry in self.entries:
            sizes = [self._size(file, entry, source) for source in entry.sources]
            needed = self.spec.slots[entry.field.name].size
            if sum(sizes) != needed:
                has = " + ".join(f"{source} with {n}" for source, n in zip(entry.sources, sizes, strict=True))
                raise ValueError(
                    f"`mapping` makes {entry.field.name!r} a field of grade {entry.field.grade}, which has {needed}"
                    f" component(s) on {dim} axes, from {has}; {file.path} has {file.listed()}."
                )

    def check_fields(self, spec: FieldSpec) -> None:
        """Raise a ValueError unless a spec has the fields of the mapping, to be written under its names."""
        for entry in self.entries:
            _slot(entry, spec)

    def read(self, file: ForeignFile, grid: Grid, trajectory: int, start: int, stop: int) -> Tensor:
        """Frames start..stop of a trajectory, shape (time, blade, *grid), float64, as the file has them."""
        components, staggering = {}, {}
        for entry in self.entries:
            if entry.field.role != "dynamic":
                continue
            parts = [_read(file, str(source), trajectory, start, stop) for source in entry.sources]
            stored = torch.from_numpy(np.concatenate(parts, 1))[None]
            order, signs = component_order(self.spec.algebra, entry.field.grade)
            places = sorted(zip(order, range(len(order)), signs, strict=True))  # in the order of the blades
            components[entry.field.name] = [sign * stored[:, :, i] for _, i, sign in places]
            if entry.staggering:
                staggering[entry.field.name] = entry.staggering
        return colocate(self.spec, grid, components, staggering)[0]

    def parameters(self, file: ForeignFile, trajectories: range) -> dict[str, list[list[float]]]:
        """Components of the parameter fields, for each trajectory, in the order of the blades."""
        found = {}
        for entry in self.entries:
            if entry.field.role != "parameter":
                continue
            columns = [_constant(file, source) for source in entry.sources]
            stored = np.concatenate(columns, 1)
            order, signs = component_order(self.spec.algebra, entry.field.grade)
            blades = np.empty_like(stored)
            blades[:, order] = stored * signs
            found[entry.field.name] = blades[trajectories.start : trajectories.stop].tolist()
        return found

    def components(self, frames: Tensor, spec: FieldSpec) -> dict[str, Tensor]:
        """The way back: arrays by their names, each (time, component, *grid), of frames (time, blade, *grid) of a spec.

        Raises:
            ValueError: a field that the spec lacks, that was averaged from staggered points, or that was taken from one
                component of a variable.
        """
        return self._back("dynamic", frames, spec)

    def constants(self, packed: Tensor, spec: FieldSpec) -> dict[str, Tensor]:
        """The constants by their names, each (trajectory, component), of packed parameters (trajectory, blade)."""
        return self._back("parameter", packed, spec)

    def _back(self, role: str, values: Tensor, spec: FieldSpec) -> dict[str, Tensor]:
        found = {}
        for entry in self.entries:
            if entry.field.role != role:
                continue
            slot = _slot(entry, spec)
            order, signs = component_order(spec.algebra, entry.field.grade)
            sign = torch.tensor(signs).to(values).view(-1, *[1] * (values.ndim - 2))
            stored = values.index_select(1, torch.tensor([slot.start + blade for blade in order])) * sign
            parts = stored.split(1, 1) if len(entry.sources) > 1 else (stored,)
            for source, part in zip(entry.sources, parts, strict=True):
                if role == "dynamic" or isinstance(source, str):  # a number given for a component of a parameter
                    found[self._target(entry, source)] = part
        return found

    def _target(self, entry: Entry, source: str | float) -> str:
        if entry.staggering or not isinstance(source, str) or _COMPONENT.fullmatch(source):
            what = f"`at: {entry.staggering}`" if entry.staggering else f"`from: {source}`"
            raise ValueError(f"`mapping` of {entry.field.name!r} cannot be written back: {what} only says how to read.")
        return source

    def _size(self, file: ForeignFile, entry: Entry, source: str | float) -> int:
        known: Mapping[str, Any] = file.variables if entry.field.role == "dynamic" else file.constants
        if isinstance(source, float):
            if entry.field.role == "parameter":
                return 1
            raise ValueError(f"`mapping` takes {entry.field.name!r} from a number ({source}): only parameters can be.")
        name, component = _split(source)
        if name not in known:
            kind = "variable" if entry.field.role == "dynamic" else "constant"
            raise ValueError(
                f"`mapping` takes {entry.field.name!r} from the {kind} {name!r}, which {file.path} has not."
                f"{question(name, known)} It has {file.listed()}."
            )
        size = known[name].components if entry.field.role == "dynamic" else known[name].shape[1]
        if component is not None and component >= size:
            raise ValueError(f"`mapping` takes {source!r}, but {name!r} of {file.path} has {size} component(s).")
        return size if component is None else 1


def _slot(entry: Entry, spec: FieldSpec) -> Slot:
    """Place of a mapped field in another spec."""
    field, slot = entry.field, spec.slots.get(entry.field.name)
    if slot is None or (slot.field.grade, slot.field.role) != (field.grade, field.role):
        known = ", ".join(f"{f.name} (grade {f.grade}, {f.role})" for f in spec.fields)
        raise ValueError(
            f"`mapping` writes the {field.role} field {field.name!r} of grade {field.grade}, which the dataset has not."
            f"{question(field.name, spec.slots)} It has {known}."
        )
    return slot


def _entry(name: str, value: Any, algebra: CliffordAlgebra) -> Entry:
    declared = dict(value) if isinstance(value, Mapping) else {"grade": value}
    for key in declared:
        if key not in _KEYS:
            raise ValueError(
                f"`mapping` of {name!r} has the key {key!r}, which means nothing.{question(key, _KEYS)} Keys:"
                f" {', '.join(_KEYS)}."
            )
    staggering = declared.get("at")
    if staggering is not None and staggering not in STAGGERINGS:
        raise ValueError(
            f"`at` of {name!r} (={staggering!r}) must be {' or '.join(map(repr, STAGGERINGS))}."
            f"{question(staggering, STAGGERINGS)}"
        )
    given = declared.get("from", name)
    sources = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not sources or any(isinstance(s, bool) or not isinstance(s, str | Real) for s in sources):
        raise ValueError(
            f"`from` of {name!r} (={given!r}) must be the name of a variable, a number, or a list of them, one for each"
            " component."
        )
    grade = _grade(name, declared.get("grade"), algebra)
    field = Field(name, grade, str(declared.get("unit", "1")), declared.get("role", "dynamic"))
    return Entry(field, tuple(s if isinstance(s, str) else float(s) for s in sources), staggering)


def _grade(name: str, value: Any, algebra: CliffordAlgebra) -> int:
    grades = {word: k for k, word in enumerate(GRADES[:4]) if k <= algebra.dim}
    grades |= {"pseudoscalar": algebra.dim, "pseudovector": algebra.dim - 1}
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= algebra.dim:
        return value
    if not isinstance(value, str) or value not in grades:
        raise ValueError(
            f"`grade` of {name!r} (={value!r}) is none of the {algebra.dim} axes: choose from"
            f" {', '.join(grades)}, or a number.{question(str(value), grades)}"
        )
    return grades[value]


def _split(source: str) -> tuple[str, int | None]:
    match = _COMPONENT.fullmatch(source)
    return (match[1], int(match[2])) if match else (source, None)


def _read(file: ForeignFile, source: str, trajectory: int, start: int, stop: int) -> np.ndarray:
    name, component = _split(source)
    values = np.asarray(file.variables[name].read(trajectory, start, stop), np.float64)
    return values if component is None else values[:, component : component + 1]


def _constant(file: ForeignFile, source: str | float) -> np.ndarray:
    if isinstance(source, float):
        return np.full((file.n_trajectories, 1), source)
    name, component = _split(source)
    values = np.asarray(file.constants[name], np.float64)
    return values if component is None else values[:, component : component + 1]
