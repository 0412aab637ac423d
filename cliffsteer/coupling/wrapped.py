"""Wrapped: any function that advances arrays, NumPy's or PyTorch's, as a Stepper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.stepper import Parameters, check_frames

ARRAYS = ("torch", "numpy")


class Wrapped:
    """A function ``step(state) -> state`` as a Stepper.

    A state is a dict from the name of each dynamic field to an array: scalars (and pseudoscalars) of shape (batch,
    *grid), others (batch, component, *grid), in the order of the blades. Where the spec has parameter fields the
    function is called as ``step(state, parameters)`` with a dict of arrays (batch, component). With ``batched=False``
    it sees one trajectory at a time, without the batch axis.

    Args:
        step: the function; what it is given it may change in place.
        spec: the fields.
        grid: their grid.
        dt: time between states, in seconds unless the system says otherwise.
        arrays: "torch", which gradients go through, or "numpy", which they do not.
        batched: whether the function takes a batch.
        dtype: what the function computes in; that of the frames by default.

    Attributes:
        spec, grid, dt, history: the same; it reads one frame.

    Raises:
        ValueError: a time step that is not positive, or an unknown kind of arrays.

    Example:
        >>> from cliffsteer import Field
        >>> spec = FieldSpec((1, 1), [Field("heat", 0)])
        >>> decay = Wrapped(lambda state: {"heat": 0.5 * state["heat"]}, spec, Grid((4, 4)), dt=1.0, arrays="numpy")
        >>> float(decay.step(torch.ones(1, 1, 4, 4, 4))[0, 0, 0, 0, 0])
        0.5
    """

    history = 1

    def __init__(
        self,
        step: Callable[..., Mapping[str, Any]],
        spec: FieldSpec,
        grid: Grid,
        dt: float,
        arrays: str = "torch",
        batched: bool = True,
        dtype: torch.dtype | None = None,
    ):
        if arrays not in ARRAYS:
            raise ValueError(f"`arrays` (={arrays!r}) must be one of {', '.join(map(repr, ARRAYS))}.")
        if isinstance(dt, str) or not 0 < dt < math.inf:
            raise ValueError(f"`dt` (={dt!r}) must be a positive number.")
        self.function, self.spec, self.grid, self.dt = step, spec, grid, float(dt)
        self.arrays, self.batched, self.dtype = arrays, batched, dtype

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frame, shape (batch, 1, blade, *grid), in the dtype of ``frames``.

        Raises:
            ValueError: frames that do not fit, or a function that returns other fields or shapes.
        """
        check_frames(self, frames)
        dtype = self.dtype or frames.dtype
        fields = self.spec.unpack(frames[:, -1:].to(dtype))
        state = {name: self._lean(name, value[:, 0]) for name, value in fields.items()}
        packed = self.spec.pack_parameters(parameters, len(frames), dtype, frames.device)
        given = self.spec.unpack_parameters(packed)
        if self.batched:
            new = self._call(state, given)
        else:
            rows = [
                self._call(*({k: v[i] for k, v in part.items()} for part in (state, given))) for i in range(len(frames))
            ]
            new = {name: torch.stack([row[name] for row in rows]) for name in rows[0]} if rows else state
        for name, value in new.items():
            if name in state and value.shape != state[name].shape:
                raise ValueError(
                    f"`step` returned {name!r} with shape {tuple(value.shape)}, expected {tuple(state[name].shape)}."
                )
        grown = {name: value.unsqueeze(1) for name, value in new.items()}
        return self.spec.pack(grown).to(frames)

    def _call(self, state: dict[str, Tensor], parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.arrays == "numpy":
            state, parameters = (
                {k: v.detach().cpu().numpy().copy() for k, v in d.items()} for d in (state, parameters)
            )
        else:
            state, parameters = ({k: v.clone() for k, v in d.items()} for d in (state, parameters))
        new = self.function(state, parameters) if self.spec.parameters else self.function(state)
        if not isinstance(new, Mapping):
            raise ValueError(f"`step` returned a {type(new).__name__}: it must return a dict of arrays by field.")
        if self.arrays == "numpy":
            new = {name: np.ascontiguousarray(value) for name, value in new.items()}
        try:
            made = {name: torch.as_tensor(value) for name, value in new.items()}
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`step` returned what is no array of numbers ({error}): give one for each field."
            ) from error
        for name, value in made.items():
            if value.is_complex():
                raise ValueError(
                    f"`step` returned complex numbers for {name!r}: fields are real, give their real part."
                )
        return made

    def _lean(self, name: str, value: Tensor) -> Tensor:
        """Scalars without their component axis."""
        return value[:, 0] if value.shape[1] == 1 else value
