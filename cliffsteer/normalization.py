"""Normalization: one scale per field, so that it commutes with every symmetry of the fields.

    frames        x -> (x - m) / s      m = mean for grade 0, else 0;  s = standard deviation for grade 0, else RMS
    changes      Δx -> Δx / d           d = RMS of the change from one frame to the next
    parameters    p -> p / r            r = RMS over trajectories

A mean is invariant only for scalars: that of a vector or a pseudoscalar would single out a direction or a handedness.
All blades of a field share its scale; blades that hold no field pass unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.fields import Field, FieldSpec


class Normalization(nn.Module):
    """Scales of the fields of a system, kept as buffers, one number per blade.

    Args:
        spec: the fields.
        scales: scale of each dynamic field, in its unit.
        means: mean of scalar fields, in their unit; those left out have mean 0.
        deltas: scale of each dynamic field's change between frames, in its unit; default: ``scales``.
        parameter_scales: scale of each parameter field, in its unit; those left out have scale 1.

    Raises:
        ValueError: a name that is no such field, a dynamic field left out, a scale that is not positive and finite,
            or a mean for a field that is no scalar.
    """

    mean: Tensor
    scale: Tensor
    delta: Tensor
    parameter: Tensor

    def __init__(
        self,
        spec: FieldSpec,
        scales: Mapping[str, float],
        means: Mapping[str, float] | None = None,
        deltas: Mapping[str, float] | None = None,
        parameter_scales: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.spec = spec
        deltas = scales if deltas is None else deltas
        for name, values in (("scales", scales), ("deltas", deltas)):
            missing = [f.name for f in spec.dynamic if f.name not in values]
            if missing:
                raise ValueError(f"`{name}` lacks the field {missing[0]!r}: give one number for each dynamic field.")
        means = dict(means or {})
        for name, mean in means.items():
            if spec[name].grade != 0 and mean != 0:
                raise ValueError(
                    f"`means` gives {name!r}, of grade {spec[name].grade}, a mean (={mean}): only scalars may have one,"
                    " any other breaks equivariance."
                )
        self._register("mean", spec.dynamic, means, 0.0)
        self._register("scale", spec.dynamic, scales, 1.0)
        self._register("delta", spec.dynamic, deltas, 1.0)
        self._register("parameter", spec.parameters, parameter_scales or {}, 1.0)

    @classmethod
    def identity(cls, spec: FieldSpec) -> Normalization:
        """The normalisation that changes nothing."""
        return cls(spec, {field.name: 1.0 for field in spec.dynamic})

    # ------------------------------------------------------------------------------------------------ action

    def normalize(self, frames: Tensor) -> Tensor:
        """(x - m) / s, for frames (batch, time, blade, *grid) in physical units."""
        return (frames - self._along(self.mean, frames)) / self._along(self.scale, frames)

    def denormalize(self, frames: Tensor) -> Tensor:
        """Inverse of ``normalize``, m + s x."""
        return frames * self._along(self.scale, frames) + self._along(self.mean, frames)

    def normalize_delta(self, change: Tensor) -> Tensor:
        """Δx / d, for differences of frames (batch, time, blade, *grid) in physical units."""
        return change / self._along(self.delta, change)

    def denormalize_delta(self, change: Tensor) -> Tensor:
        """Inverse of ``normalize_delta``, d Δx."""
        return change * self._along(self.delta, change)

    def normalize_parameters(self, packed: Tensor) -> Tensor:
        """Packed parameters (batch, blade) over their scales, p / r."""
        if packed.shape[-1] != self.spec.n_parameter_blades:
            raise ValueError(
                f"`packed` has shape {tuple(packed.shape)}, expected (batch, {self.spec.n_parameter_blades}): pack the"
                " parameters with FieldSpec.pack_parameters."
            )
        return packed / self.parameter.to(packed)

    # ------------------------------------------------------------------------------------------- description

    @property
    def scales(self) -> dict[str, float]:
        """Scale of each dynamic field."""
        return self._per_field(self.scale, self.spec.dynamic)

    @property
    def means(self) -> dict[str, float]:
        """Mean of each scalar field."""
        return self._per_field(self.mean, [field for field in self.spec.dynamic if field.grade == 0])

    @property
    def deltas(self) -> dict[str, float]:
        """Scale of the change of each dynamic field."""
        return self._per_field(self.delta, self.spec.dynamic)

    @property
    def parameter_scales(self) -> dict[str, float]:
        """Scale of each parameter field."""
        return self._per_field(self.parameter, self.spec.parameters)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; ``Normalization.from_dict`` reads it back."""
        return {key: getattr(self, key) for key in ("scales", "means", "deltas", "parameter_scales")}

    @classmethod
    def from_dict(cls, spec: FieldSpec, data: Mapping[str, Any]) -> Normalization:
        """The normalisation that ``to_dict`` described.

        Raises:
            ValueError: the description does not fit the spec.
        """
        return cls(spec, **data)

    def extra_repr(self) -> str:
        """Scales of the fields, for ``print(module)``."""
        return ", ".join(f"{name}: {scale:.4g}" for name, scale in self.scales.items())

    # ------------------------------------------------------------------------------------------------ private

    def _register(self, name: str, fields: tuple[Field, ...], values: Mapping[str, float], default: float) -> None:
        unknown = sorted(set(values) - {field.name for field in fields})
        if unknown:
            known = ", ".join(repr(field.name) for field in fields) or "none"
            raise ValueError(f"There is no field {unknown[0]!r} to normalise; there are {known}.")
        size = self.spec.n_blades if name != "parameter" else self.spec.n_parameter_blades
        numbers = torch.full((size,), default)
        for field in fields:
            value = float(values.get(field.name, default))
            if not math.isfinite(value) or (name != "mean" and value <= 0):
                rule = "finite" if name == "mean" else "positive and finite"
                raise ValueError(f"`{name}` of field {field.name!r} (={value}) must be {rule}: look for bad data.")
            numbers[self.spec.slots[field.name].start : self.spec.slots[field.name].stop] = value
        self.register_buffer(name, numbers)

    def _per_field(self, numbers: Tensor, fields: tuple[Field, ...] | list[Field]) -> dict[str, float]:
        return {field.name: float(numbers[self.spec.slots[field.name].start]) for field in fields}

    def _along(self, numbers: Tensor, frames: Tensor) -> Tensor:
        self.spec.check_frames(frames)
        return numbers.to(frames).view(-1, *[1] * self.spec.algebra.dim)
