"""FieldSpec: the named physical fields of a system and their places among the blades.

A *dynamic* field evolves; a *parameter* field is constant in space and time but transforms like any other field
(viscosity is a scalar, gravity a vector, the Coriolis parameter in 2D a pseudoscalar), so that an equivariant map sees
a symmetry-breaking force turned together with the data.

Dynamic fields are packed into as few multivectors as possible: each field takes the first multivector whose blades of
its grade are still free. Frames hold them as (batch, time, blade, *grid) with ``spec.n_multivectors * n_blades`` blades
(nearly always one multivector); parameters as (batch, blade) likewise.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra

Role = Literal["dynamic", "parameter"]


@dataclass(frozen=True)
class Field:
    """One physical field.

    Args:
        name: its name, e.g. "velocity".
        grade: 0 scalar, 1 vector, 2 bivector, ..., n pseudoscalar.
        unit: unit of its components, e.g. "m/s".
        role: "dynamic" (evolves) or "parameter" (constant in space and time).
        default: default components of a parameter field, one number per blade of the grade.
    """

    name: str
    grade: int
    unit: str = "1"
    role: Role = "dynamic"
    default: tuple[float, ...] | None = None

    def __post_init__(self):
        if self.default is not None:
            object.__setattr__(self, "default", _components(self.name, self.default))
        if hasattr(self.grade, "__index__") and not isinstance(self.grade, bool):
            object.__setattr__(self, "grade", operator.index(self.grade))


@dataclass(frozen=True)
class Slot:
    """Place of a field: the blades start..stop on the packed blade axis."""

    field: Field
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of components."""
        return self.stop - self.start


class FieldSpec:
    """The fields of a system, in order, over one algebra.

    Args:
        signature: signs of the metric, one per grid axis.
        fields: the fields; names must differ.

    Attributes:
        algebra, fields, dynamic, parameters: what the names say (tuples of Field).
        slots: dict from field name to its place on the blade axis of frames or of packed parameters.
        n_multivectors, n_parameter_multivectors: how many multivectors each of the two packs takes.

    Raises:
        ValueError: no dynamic field, a name used twice, a grade the algebra lacks, an unknown role, a default with
            the wrong number of components, or one of a dynamic field.

    Example:
        >>> spec = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1, "m/s")])
        >>> frames = spec.pack({"density": torch.zeros(2, 1, 8, 8), "velocity": torch.zeros(2, 1, 2, 8, 8)})
        >>> frames.shape
        torch.Size([2, 1, 4, 8, 8])
    """

    def __init__(self, signature: Sequence[int], fields: Sequence[Field]):
        self.algebra = CliffordAlgebra(signature)
        self.fields = tuple(fields)
        for field in self.fields:
            self._check_field(field)
        names = [field.name for field in self.fields]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"`fields` names {repeated[0]!r} more than once: each field needs its own name.")
        self.dynamic = tuple(f for f in self.fields if f.role == "dynamic")
        self.parameters = tuple(f for f in self.fields if f.role == "parameter")
        if not self.dynamic:
            raise ValueError("`fields` holds no dynamic field: a system needs at least one field that evolves.")
        dynamic, self.n_multivectors = self._place(self.dynamic)
        parameters, self.n_parameter_multivectors = self._place(self.parameters)
        self.slots: dict[str, Slot] = dynamic | parameters

    # -------------------------------------------------------------------------------------------- description

    @property
    def n_blades(self) -> int:
        """Length of the blade axis of frames."""
        return self.n_multivectors * self.algebra.n_blades

    @property
    def n_parameter_blades(self) -> int:
        """Length of the blade axis of packed parameters."""
        return self.n_parameter_multivectors * self.algebra.n_blades

    def __getitem__(self, name: str) -> Field:
        return self._slot(name).field

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSpec) and (self.algebra, self.fields) == (other.algebra, other.fields)

    def __hash__(self) -> int:
        return hash((self.algebra, self.fields))

    def __repr__(self) -> str:
        fields = ", ".join(f"{f.name}: grade {f.grade} [{f.unit}] {f.role}" for f in self.fields)
        return f"FieldSpec({self.algebra.signature}, {fields})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``FieldSpec.from_dict`` reads it back."""
        fields = [
            {
                "name": f.name,
                "grade": f.grade,
                "unit": f.unit,
                "role": f.role,
                "default": None if f.default is None else list(f.default),
            }
            for f in self.fields
        ]
        return {"signature": list(self.algebra.signature), "fields": fields}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FieldSpec:
        """The spec that ``to_dict`` described."""
        fields = [
            Field(**{**f, "default": None if f.get("default") is None else tuple(f["default"])}) for f in data["fields"]
        ]
        return cls(data["signature"], fields)

    @property
    def occupied(self) -> Tensor:
        """Which blades of frames hold a field, bool, shape (n_blades,); the others are always zero."""
        mask = torch.zeros(self.n_blades, dtype=torch.bool)
        for field in self.dynamic:
            mask[self.slots[field.name].start : self.slots[field.name].stop] = True
        return mask

    # ------------------------------------------------------------------------------------- packing of frames

    def pack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Pack dynamic fields into frames.

        Args:
            values: for each dynamic field a tensor (batch, time, component, *grid); scalars and pseudoscalars may
                leave the component axis out.

        Returns:
            Frames, shape (batch, time, blade, *grid), zero where no field lives; of the dtype that all fields promote
            to, floating-point in any case.

        Raises:
            ValueError: a field is missing or unknown, its component count does not fit its grade, or the fields
                differ in batch, time or grid.
        """
        self._check_names(values, self.dynamic, "dynamic")
        parts = {f.name: self._with_components(f, values[f.name], 2 + self.algebra.dim) for f in self.dynamic}
        first, reference = next(iter(parts.items()))
        outer = (*reference.shape[:2], *reference.shape[3:])
        dtype = functools.reduce(torch.promote_types, [part.dtype for part in parts.values()])
        if not (dtype.is_floating_point or dtype.is_complex):
            dtype = torch.get_default_dtype()
        out = reference.new_zeros(*reference.shape[:2], self.n_blades, *reference.shape[3:], dtype=dtype)
        for name, part in parts.items():
            if (*part.shape[:2], *part.shape[3:]) != outer:
                raise ValueError(
                    f"`{name}` has shape {tuple(part.shape)} and `{first}` {tuple(reference.shape)}: fields of one"
                    " frame must share batch, time and grid."
                )
            slot = self.slots[name]
            out[:, :, slot.start : slot.stop] = part
        return out

    def unpack(self, frames: Tensor) -> dict[str, Tensor]:
        """Dynamic fields of frames as views, each (batch, time, component, *grid).

        Raises:
            ValueError: the blade axis (axis 2) does not have ``n_blades`` entries.
        """
        self.check_frames(frames)
        return {f.name: frames[:, :, self.slots[f.name].start : self.slots[f.name].stop] for f in self.dynamic}

    def check_frames(self, frames: Tensor) -> None:
        """Raise a ValueError unless the tensor is (batch, time, blade, *grid) for this spec."""
        if frames.ndim != 3 + self.algebra.dim or frames.shape[2] != self.n_blades:
            grid = ", ".join(f"X{i + 1}" for i in range(self.algebra.dim))
            raise ValueError(
                f"`frames` has shape {tuple(frames.shape)}, expected (batch, time, {self.n_blades}, {grid}) for {self}."
            )

    # --------------------------------------------------------------------------------- packing of parameters

    def pack_parameters(
        self, values: Mapping[str, Any] | None, batch: int, dtype: torch.dtype = torch.float32, device: Any = None
    ) -> Tensor:
        """Pack parameter fields into multivectors, shape (batch, blade), filling in defaults.

        Args:
            values: for each parameter field its components, (batch, component) or (component,) or, for scalars, a
                number; a field left out takes its default. None means all defaults.
            batch: number of rows.
            dtype: of the result.
            device: of the result.

        Raises:
            ValueError: an unknown name, a wrong component count or batch, what is no number, or no value where there is
                no default.
        """
        values = dict(values or {})
        unknown = sorted(set(values) - {f.name for f in self.parameters})
        if unknown:
            raise ValueError(
                f"`parameters` has no field {unknown[0]!r}; this system has {self._listed(self.parameters)}."
            )
        out = torch.zeros(batch, self.n_parameter_blades, dtype=dtype, device=device)
        for field in self.parameters:
            slot, value = self.slots[field.name], values.get(field.name, field.default)
            if value is None:
                raise ValueError(
                    f"`parameters` lacks {field.name!r}, which has no default; give its {slot.size} component(s)."
                )
            try:
                tensor = torch.as_tensor(value, dtype=dtype, device=device)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"`{field.name}` (={value!r}) must be numbers, of shape ({batch}, {slot.size}) or ({slot.size},):"
                    f" grade {field.grade} has {slot.size} component(s) in {self.algebra}."
                ) from error
            if tensor.ndim == 0 or (tensor.ndim == 1 and slot.size == 1 and len(tensor) == batch):
                tensor = tensor.reshape(-1, 1)
            if tensor.shape[-1] != slot.size or tensor.ndim > 2 or (tensor.ndim == 2 and len(tensor) not in (1, batch)):
                raise ValueError(
                    f"`{field.name}` has shape {tuple(tensor.shape)}, not ({batch}, {slot.size}) or ({slot.size},):"
                    f" grade {field.grade} has {slot.size} component(s) in {self.algebra}."
                )
            out[:, slot.start : slot.stop] = tensor
        return out

    def unpack_parameters(self, packed: Tensor) -> dict[str, Tensor]:
        """Parameter fields of a packed tensor (batch, blade), each (batch, component)."""
        return {f.name: packed[:, self.slots[f.name].start : self.slots[f.name].stop] for f in self.parameters}

    # ------------------------------------------------------------------------------------------------ private

    def _place(self, fields: Sequence[Field]) -> tuple[dict[str, Slot], int]:
        slots: dict[str, Slot] = {}
        taken: list[set[int]] = []
        for field in fields:
            home = next((i for i, grades in enumerate(taken) if field.grade not in grades), len(taken))
            if home == len(taken):
                taken.append(set())
            taken[home].add(field.grade)
            part = self.algebra.grade_slice(field.grade)
            offset = home * self.algebra.n_blades
            slots[field.name] = Slot(field, offset + part.start, offset + part.stop)
        return slots, len(taken)

    def _check_field(self, field: Field) -> None:
        is_whole = isinstance(field.grade, int) and not isinstance(field.grade, bool)
        if not is_whole or not 0 <= field.grade <= self.algebra.dim:
            raise ValueError(
                f"`grade` of field {field.name!r} (={field.grade}) must be in 0..{self.algebra.dim} for {self.algebra},"
                " a whole number: 0 scalar, 1 vector, 2 bivector, up to the pseudoscalar."
            )
        if field.role not in ("dynamic", "parameter"):
            raise ValueError(f"`role` of field {field.name!r} (={field.role!r}) must be 'dynamic' or 'parameter'.")
        if field.default is not None and field.role == "dynamic":
            raise ValueError(
                f"`default` of field {field.name!r} (={field.default}) has no meaning, the field is dynamic: only"
                " fields of the role 'parameter' have defaults."
            )
        size = self.algebra.grade_size(field.grade)
        if field.default is not None and len(field.default) != size:
            raise ValueError(
                f"`default` of field {field.name!r} (={field.default}) must have {size} component(s), one per blade of"
                f" grade {field.grade}."
            )

    def _check_names(self, values: Mapping[str, Any], fields: Sequence[Field], role: str) -> None:
        missing = [f.name for f in fields if f.name not in values]
        if missing:
            raise ValueError(f"`values` lacks the {role} field {missing[0]!r}; this system has {self._listed(fields)}.")
        unknown = sorted(set(values) - {f.name for f in fields})
        if unknown:
            raise ValueError(f"`values` has no {role} field {unknown[0]!r}; this system has {self._listed(fields)}.")

    def _with_components(self, field: Field, value: Tensor, ndim_scalar: int) -> Tensor:
        size = self.slots[field.name].size
        if size == 1 and value.ndim == ndim_scalar:
            return value.unsqueeze(2)
        if value.ndim != ndim_scalar + 1 or value.shape[2] != size:
            raise ValueError(
                f"`{field.name}` has shape {tuple(value.shape)}, expected (batch, time, {size}, *grid) with"
                f" {self.algebra.dim} grid axes: grade {field.grade} has {size} component(s) in {self.algebra}."
            )
        return value

    def _slot(self, name: str) -> Slot:
        if name not in self.slots:
            raise ValueError(f"No field {name!r}; this system has {self._listed(self.fields)}.")
        return self.slots[name]

    @staticmethod
    def _listed(fields: Sequence[Field]) -> str:
        return ", ".join(repr(f.name) for f in fields) or "none"


def _components(name: str, default: Any) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in default)
    except (TypeError, ValueError):
        raise ValueError(
            f"`default` of field {name!r} (={default!r}) must be a tuple of numbers, one per component."
        ) from None
