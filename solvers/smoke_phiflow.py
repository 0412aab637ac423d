"""The smoke recipe in PhiFlow 3.4: the same states, options and step as ``smoke``, with PhiFlow's own operations.

It is the reference that the native solver is held against, and the link to results obtained with PhiFlow. The pressure
is solved by conjugate gradients in float64, so a step agrees with the native one to the ``tolerance`` of that solve.
(In float32, or with PhiFlow's default handling of the pressure's free constant, which makes the system indefinite, the
solve diverges on this set-up; here the constant is left free, which conjugate gradients allow.)

Source: Holl and Thuerey, "Φ-Flow: differentiable simulations for PyTorch, TensorFlow and Jax" (2024).
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from cliffsteer.solvers.base import State
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.smoke import Smoke

_MODULES = {
    "math": "phi.math",
    "field": "phi.field",
    "geom": "phi.geom",
    "advect": "phi.physics.advect",
    "diffuse": "phi.physics.diffuse",
    "fluid": "phi.physics.fluid",
    "backend": "phi.torch",
}
_AXES = ("x", "y", "z")


@register("smoke_phiflow")
class SmokePhiFlow(Smoke):
    """Buoyant smoke as in `smoke`, run by PhiFlow: the reference, and some hundred times slower.

    Args:
        tolerance: of the pressure solve, relative and absolute, on the residual of ∇²p = ∇·u.
        options: those of ``Smoke``.

    Raises:
        ValueError: as ``Smoke``; or the pressure solve does not reach the tolerance.
    """

    name: ClassVar[str] = "smoke_phiflow"

    def __init__(self, tolerance: float = 1e-10, **options: Any):
        if not isinstance(tolerance, float) or not 0 < tolerance < 1:
            raise ValueError(f"`tolerance` (={tolerance!r}) must lie between 0 and 1.")
        super().__init__(**options)
        self.tolerance = tolerance

    def advance(self, state: State) -> State:
        """The state one ``dt`` later, by PhiFlow.

        Raises:
            ValueError: a viscosity that is unstable, or a pressure solve that does not reach the tolerance.
        """
        self.check_viscosity(state.parameters["viscosity"])
        with phiflow() as phi:
            return self._advance(phi, state)

    def _advance(self, phi: SimpleNamespace, state: State) -> State:
        math, dt = phi.math, self.dt
        axes = _AXES[: self.grid.dim]
        batch, space = math.batch("batch"), math.spatial(",".join(axes))

        def wrap(x: Tensor) -> Any:
            return math.wrap(x, batch, space)

        domain = dict(zip(axes, self.grid.shape, strict=True))
        bounds = phi.geom.Box(**dict(zip(axes, self.grid.extent, strict=True)))
        smoke = phi.field.CenteredGrid(wrap(state.values["density"]), math.extrapolation.BOUNDARY, bounds)
        faces = {axis: wrap(face) for axis, face in zip(axes, self.faces(state), strict=True)}
        velocity = phi.field.StaggeredGrid(math.stack(faces, math.dual("vector")), 0, bounds, **domain)
        buoyancy = math.wrap(state.parameters["buoyancy"], batch, math.channel(vector=",".join(axes)))
        viscosity = math.wrap(state.parameters["viscosity"][:, 0], batch)

        smoke = phi.advect.semi_lagrangian(smoke, velocity, dt)
        lift = phi.field.resample(smoke * buoyancy, velocity)
        velocity = phi.advect.semi_lagrangian(velocity, velocity, dt) + lift * dt
        velocity = phi.diffuse.explicit(velocity, viscosity, dt)
        limit = 100 * max(self.grid.shape)
        solve = math.Solve("CG", self.tolerance, self.tolerance, max_iterations=limit, rank_deficiency=0)
        try:
            velocity, _ = phi.fluid.make_incompressible(velocity, solve=solve)
        except math.ConvergenceException as error:
            raise ValueError(
                f"`tolerance` (={self.tolerance:g}) was not reached by the pressure solve within {limit} iterations:"
                " choose a larger one, or the native solver 'smoke', whose projection is exact."
            ) from error

        order = ",".join(("batch", *axes))
        density = smoke.values.native(order)
        projected = [velocity.values[{"~vector": axis}].native(order) for axis in axes]
        return self.with_values(state, density, projected)


@contextlib.contextmanager
def phiflow() -> Iterator[SimpleNamespace]:
    """PhiFlow's modules, imported when first needed, on its PyTorch backend and in float64.

    Warnings that its own use of numpy and torch raises are silenced: no caller can act on them.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        phi = SimpleNamespace(**{name: importlib.import_module(module) for name, module in _MODULES.items()})
        with phi.backend.TORCH, phi.math.precision(64):
            yield phi
