"""PhiFlow: a Stepper in place of the step function of a PhiFlow script, fields in, fields out.

    from cliffsteer.interop.phiflow import PhiFlowStep                             # 1
    step = PhiFlowStep(Surrogate.from_pretrained(folder), buoyancy=(0, 0.5))       # 2
    for _ in range(steps):
        v, s = step(v, s)                                                          # 3, as before

Source: Holl and Thuerey, "Φ-Flow: differentiable simulations for PyTorch, TensorFlow and Jax" (2024).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from cliffsteer.solvers.mac import WALLS, MacGrid
from cliffsteer.stepper import Stepper


class PhiFlowStep:
    """A Stepper as the step function of a PhiFlow script.

    Called with one PhiFlow field per dynamic field of the stepper, it returns them one ``stepper.dt`` later: on the
    same geometry and boundaries, staggered or centred as they came, with the union of their batch dimensions, in their
    precision.

    **History.** Frames are collected from the fields of each call, so the stepper sees what the script made of its
    output (an inflow that was added, say). A stepper that reads several frames has too few at first: then ``warm_up``,
    the script's own step function, takes the first steps; without one the oldest frame stands for those before it.
    Call ``reset()`` before another trajectory. A stepper that predicts several frames at once hands them out one by
    one, as long as the script passes them back unchanged.

    **Staggered velocity.** Frames are centred. A field that comes back as it was returned is not averaged again, so a
    rollout here is the rollout of the stepper. On grids with walls or periodic sides the returned faces are the
    divergence-free ones whose averages come closest to the prediction; with open sides, and with
    ``divergence_free=False``, they are plain averages of neighbouring centres.

    Args:
        stepper: any Stepper whose dynamic fields are scalars and vectors.
        fields: names of its dynamic fields in the order of the call; default: vectors first, then scalars, which is
            (velocity, density) for smoke.
        warm_up: a step function of the same fields, used while the history is short.
        divergence_free: whether staggered fields are returned free of divergence.
        parameters: parameter fields of the stepper by name; those left out take its defaults.

    Raises:
        ValueError: names that are not the stepper's, a dynamic field that is neither scalar nor vector, or one of an
            obstacle.

    Example:
        >>> from phi.field import CenteredGrid, StaggeredGrid  # doctest: +SKIP
        >>> from cliffsteer.solvers import create
        >>> step = PhiFlowStep(create("smoke", resolution=32), buoyancy=(0, 0.5), viscosity=0.01)
        >>> domain = dict(x=32, y=32, bounds=Box(x=32, y=32))  # doctest: +SKIP
        >>> s = CenteredGrid(Noise(), extrapolation.BOUNDARY, **domain)  # doctest: +SKIP
        >>> v = StaggeredGrid(0, extrapolation.ZERO, **domain)  # doctest: +SKIP
        >>> v, s = step(v, s)  # doctest: +SKIP
    """

    def __init__(
        self,
        stepper: Stepper,
        fields: tuple[str, ...] | None = None,
        warm_up: Callable[..., Any] | None = None,
        divergence_free: bool = True,
        **parameters: Any,
    ):
        dynamic = {field.name: field for field in stepper.spec.dynamic}
        odd = [field.name for field in dynamic.values() if field.grade > 1]
        if odd:
            raise ValueError(f"`stepper` has the field {odd[0]!r} of grade > 1: PhiFlow knows scalars and vectors.")
        if "solid" in dynamic:
            raise ValueError(
                "`stepper` has the field 'solid', which tells where an obstacle is: PhiFlow's fields do not hold it,"
                " and the velocities made of them here would flow through it; call `stepper.step` on frames instead."
            )
        self.fields = tuple(fields or sorted(dynamic, key=lambda name: -dynamic[name].grade))
        if sorted(self.fields) != sorted(dynamic):
            raise ValueError(
                f"`fields` (={self.fields}) must name each dynamic field of the stepper once: {', '.join(dynamic)}."
            )
        rows = [len(value) for value in map(torch.as_tensor, parameters.values()) if value.ndim == 2]
        stepper.spec.pack_parameters(parameters, max(rows, default=1))
        self.stepper, self.warm_up, self.parameters = stepper, warm_up, parameters
        closed = all(side in (*WALLS, "periodic") for sides in stepper.grid.boundary for side in sides)
        self._mac = MacGrid(stepper.grid) if divergence_free and closed else None
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next call starts another trajectory."""
        self._history: list[Tensor] = []
        self._queue: list[Tensor] = []
        self._returned: dict[str, tuple[Any, Tensor]] = {}

    def __call__(self, *fields: Any) -> Any:
        """The fields one ``stepper.dt`` later, in the order they came (a single field alone).

        Args:
            fields: PhiFlow fields, one for each of ``self.fields``; scalars centred, vectors centred or staggered.

        Raises:
            ValueError: the wrong number or kind of fields, or a dimension, resolution, cell size, boundary or batch
                that does not match the stepper, the other fields or the frames before.
        """
        if len(fields) != len(self.fields):
            raise ValueError(f"{len(fields)} field(s) given, expected {len(self.fields)}: {', '.join(self.fields)}.")
        given = dict(zip(self.fields, fields, strict=True))
        for name, field in given.items():
            self._check(name, field)
        frame, batch = self._frame(given)
        if self._history and self._history[-1].shape != frame.shape:
            raise ValueError(
                f"the fields have a batch of {len(frame)}, those before had {len(self._history[-1])}: call reset()"
                " before another trajectory."
            )
        self._history = [*self._history, frame][-self.stepper.history :]
        unchanged = all(name in self._returned and self._returned[name][0] is field for name, field in given.items())
        if not (unchanged and self._queue):
            missing = self.stepper.history - len(self._history)
            if missing and self.warm_up is not None:
                return self.warm_up(*fields)
            frames = torch.cat([self._history[0]] * missing + self._history, 1)
            self._queue = list(self.stepper.step(frames, self.parameters).split(1, 1))
        return self._to_fields(self._queue.pop(0), given, batch)

    def _frame(self, given: dict[str, Any]) -> tuple[Tensor, Any]:
        """The fields as one frame (batch, 1, blade, *grid), and PhiFlow's shape of the batch."""
        from phi import math

        batch = math.merge_shapes(*[field.shape.batch for field in given.values()])
        values = {}
        for name, field in given.items():
            returned, centred = self._returned.get(name, (None, None))
            values[name] = (_centred(field, batch) if returned is not field else centred)[:, None]
        dtype = max((v.dtype for v in values.values()), key=lambda t: t.itemsize)
        return self.stepper.spec.pack({name: v.to(dtype) for name, v in values.items()}), batch

    def _to_fields(self, frame: Tensor, given: dict[str, Any], batch: Any) -> Any:
        centred = {name: value[:, 0] for name, value in self.stepper.spec.unpack(frame).items()}
        out = []
        for name, field in given.items():
            with _precision(field):
                out.append(self._to_field(centred[name], field, batch))
        self._returned = {name: (field, centred[name]) for name, field in zip(given, out, strict=True)}
        return out[0] if len(out) == 1 else tuple(out)

    def _to_field(self, centred: Tensor, like: Any, batch: Any) -> Any:
        """Centred values (batch, component, *grid) as a field on the geometry and with the boundary of ``like``."""
        from phi import math
        from phi.field import CenteredGrid

        axes = like.resolution.names
        dtype = _dtype(like)

        def wrap(values: Tensor, *dims: Any) -> Any:
            native = values.to(dtype)
            if like.values.default_backend.name != "torch":
                native = native.detach().cpu().numpy()
            sizes = values.shape[values.ndim - len(axes) :]
            shape = [math.spatial(**{axis: n}) for axis, n in zip(axes, sizes, strict=True)]
            return math.reshaped_tensor(native, [batch, *dims, *shape], convert=False)

        if not like.is_staggered:
            vector = "vector" in like.shape
            return like.with_values(
                wrap(centred, math.channel(vector=",".join(axes))) if vector else wrap(centred[:, 0])
            )
        if self._mac is None:
            values = wrap(centred, math.channel(vector=",".join(axes)))
            return CenteredGrid(values, like.boundary, like.bounds).at(like)
        faces = self._mac.to_faces(centred.to(torch.float64))
        return like.with_values(math.stack({a: wrap(f) for a, f in zip(axes, faces, strict=True)}, math.dual("vector")))

    def _check(self, name: str, field: Any) -> None:
        """Raise a ValueError unless the field lives on the stepper's grid and has the right kind."""
        grid, grade = self.stepper.grid, self.stepper.spec[name].grade
        if not getattr(field, "is_grid", False):
            raise ValueError(f"`{name}` (a {type(field).__name__}) must be a PhiFlow CenteredGrid or StaggeredGrid.")
        if len(field.resolution) != grid.dim:
            raise ValueError(f"`{name}` has {len(field.resolution)} dimension(s), the stepper {grid.dim}.")
        if ("vector" in field.shape) != (grade == 1):
            raise ValueError(f"`{name}` must be a {'vector' if grade else 'scalar'} field: it has shape {field.shape}.")
        if tuple(field.resolution.sizes) != grid.shape:
            raise ValueError(f"`{name}` has resolution {tuple(field.resolution.sizes)}, the stepper {grid.shape}.")
        size = [float(field.bounds.size.vector[axis]) for axis in field.resolution.names]
        if any(abs(a - b) > 1e-5 * b for a, b in zip(size, grid.extent, strict=True)):
            raise ValueError(f"`{name}` covers {tuple(size)}, the stepper {grid.extent} ({', '.join(grid.unit)}).")
        sides = boundary_kinds(field)
        if grade == 1 and sides != grid.boundary:
            raise ValueError(f"`{name}` has the boundary {_sides(sides)}, the stepper {_sides(grid.boundary)}.")
        wrapped = [[side == "periodic" for side in pair] for pair in (*sides, *grid.boundary)]
        if wrapped[: grid.dim] != wrapped[grid.dim :]:
            raise ValueError(f"`{name}` and the stepper must be periodic along the same axes: {_sides(grid.boundary)}.")


def boundary_kinds(field: Any) -> tuple[tuple[str, str], ...]:
    """The kinds of each side of a PhiFlow field, (low, high) per axis, in the words of ``Grid``.

    As for a velocity: 0 is a no-slip wall, 0 along the normal with free tangential values a slip wall, zero gradient
    open. What ``Grid`` has no word for keeps PhiFlow's, e.g. "constant 1.0".
    """
    description = field.boundary.to_dict()
    by_side = description["dims"] if description["type"].startswith("mixed") else {}
    return tuple(
        tuple(_kind(by_side.get(axis + sign, by_side.get(axis, description))) for sign in "-+")
        for axis in field.resolution.names
    )


def _kind(description: dict[str, Any]) -> str:
    kind = description["type"]
    if kind == "constant":
        value = torch.as_tensor(description["value"]).to(torch.float64)
        return "no_slip" if not bool(value.any()) else f"constant {value.tolist()}"
    if kind == "normal-tangential":
        normal, tangential = _kind(description["normal"]), _kind(description["tangential"])
        along = {("no_slip", "no_slip"): "no_slip", ("no_slip", "open"): "slip", ("open", "open"): "open"}
        return along.get((normal, tangential), f"normal {normal}, tangential {tangential}")
    return {"zero-gradient": "open", "boundary": "open", "periodic": "periodic"}.get(kind, kind)


def _sides(boundary: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(low if low == high else f"{low}/{high}" for low, high in boundary)


def _dtype(field: Any) -> torch.dtype:
    return torch.float64 if field.values.dtype.precision == 64 else torch.float32


def _precision(field: Any) -> AbstractContextManager:
    """PhiFlow set to the precision of a field: it averages and reshapes in its own default, whatever fields have."""
    from phi import math

    return math.precision(64 if _dtype(field) == torch.float64 else 32)


def _centred(field: Any, batch: Any) -> Tensor:
    """Values at the cell centres, shape (batch, component, *grid), on the field's device."""
    from phi import math

    axes = field.resolution.names
    with _precision(field):
        values = (field.at_centers() if field.is_staggered else field).values
        order = [batch, *(["vector"] if "vector" in values.shape else []), *axes]
        values = math.expand(values, batch, field.resolution)
        native = values.native(order)
        tensor = torch.as_tensor(native if isinstance(native, Tensor) else values.numpy(order))
    tensor = tensor.to(_dtype(field))
    return tensor if "vector" in values.shape else tensor.unsqueeze(1)
