"""The smoke recipe in PhiFlow 3.4: the same states, options and step as ``smoke``, with PhiFlow's own operations.

It is the reference that the native solver is held against, and the link to results obtained with PhiFlow. The pressure
is solved by conjugate gradients in float64, so a step agrees with the native one to the ``tolerance`` of that solve.
(In float32, or with PhiFlow's default handling of the pressure's free constant, which makes the system indefinite, the
solve diverges on this set-up; here the constant is left free, which conjugate gradients allow.)

Good values: those of ``smoke`` and a ``tolerance`` of 1e-10, the default; 1e-12 still converges at 16 cells a side.

Source: Holl and Thuerey, "Φ-Flow: differentiable simulations for PyTorch, TensorFlow and Jax" (2024).
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

from cliffsteer.solvers.base import State
from cliffsteer.solvers.options import require_values
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
    packages: ClassVar[tuple[str, ...]] = ("phiflow",)
    way_out: ClassVar[str] = ", or the native solver 'smoke', whose projection is exact"

    def __init__(self, tolerance: float = 1e-10, **options: Any):
        if not isinstance(tolerance, float) or not 0 < tolerance < 1:
            raise ValueError(f"`tolerance` (={tolerance!r}) must lie between 0 and 1.")
        super().__init__(**options)
        self.tolerance = tolerance

    def advance(self, state: State) -> State:
        """The state one ``dt`` later, by PhiFlow.

        Raises:
            ValueError: a parameter that is not finite, a viscosity that is negative or too large to be stable, or a
                pressure solve that does not reach the tolerance.
        """
        self.check_viscosity(state.parameters["viscosity"])
        require_values("buoyancy", state.parameters["buoyancy"], "m/s²")
        if not len(state.parameters["viscosity"]):  # no trajectory, nothing to move
            return state
        with phiflow() as phi:
            return self._advance(phi, state)

    def _advance(self, phi: SimpleNamespace, state: State) -> State:
        math, dt = phi.math, self.dt
        batch, space = self._dimensions(phi)
        smoke, velocity = self._fields(phi, state)
        buoyancy = math.wrap(state.parameters["buoyancy"], batch, math.channel(vector=",".join(space.names)))
        viscosity = math.wrap(state.parameters["viscosity"][:, 0], batch)

        smoke, moved = self._carry(phi, state, smoke, velocity)
        lift = phi.field.resample(smoke * buoyancy, moved)
        velocity = moved.with_values(moved.values + lift.values * dt)
        velocity = phi.diffuse.explicit(velocity, viscosity, dt)
        velocity = self._project(phi, state, velocity)

        order = ",".join(("batch", *space.names))
        density = smoke.values.native(order)
        projected = [velocity.values[{"~vector": axis}].native(order) for axis in space.names]
        return self.with_values(state, density, projected)

    def _dimensions(self, phi: SimpleNamespace) -> tuple[Any, Any]:
        """PhiFlow's names for batch and grid axes."""
        return phi.math.batch("batch"), phi.math.spatial(",".join(_AXES[: self.grid.dim]))

    def _extrapolations(self, phi: SimpleNamespace) -> tuple[Any, Any]:
        """What smoke and velocity are beyond the sides."""
        return phi.math.extrapolation.BOUNDARY, phi.math.extrapolation.ZERO

    def _fields(self, phi: SimpleNamespace, state: State) -> tuple[Any, Any]:
        """Smoke and velocity of a state as PhiFlow's fields."""
        math = phi.math
        dimensions = self._dimensions(phi)
        axes = dimensions[1].names
        bounds = phi.geom.Box(**dict(zip(axes, self.grid.extent, strict=True)))
        beyond_smoke, beyond_velocity = self._extrapolations(phi)
        smoke = phi.field.CenteredGrid(math.wrap(state.values["density"], *dimensions), beyond_smoke, bounds)
        faces = {axis: math.wrap(face, *dimensions) for axis, face in zip(axes, self.faces(state), strict=True)}
        values, domain = math.stack(faces, math.dual("vector")), dict(zip(axes, self.grid.shape, strict=True))
        return smoke, phi.field.StaggeredGrid(values, beyond_velocity, bounds, **domain)

    def _carry(self, phi: SimpleNamespace, state: State, smoke: Any, velocity: Any) -> tuple[Any, Any]:
        """Smoke and velocity carried along for one ``dt``."""
        return tuple(phi.advect.semi_lagrangian(field, velocity, self.dt) for field in (smoke, velocity))

    def _project(self, phi: SimpleNamespace, state: State, velocity: Any, obstacles: Any = ()) -> Any:
        """The velocity less its pressure gradient, free of divergence."""
        limit = 100 * max(self.grid.shape)
        solve = phi.math.Solve("CG", self.tolerance, self.tolerance, max_iterations=limit, rank_deficiency=0)
        try:
            return phi.fluid.make_incompressible(velocity, obstacles, solve)[0]
        except phi.math.ConvergenceException as error:
            raise ValueError(
                f"`tolerance` (={self.tolerance:g}) was not reached by the pressure solve within {limit} iterations:"
                f" choose a larger one{self.way_out}."
            ) from error


@contextlib.contextmanager
def phiflow() -> Iterator[SimpleNamespace]:
    """PhiFlow's modules, imported when first needed, on its PyTorch backend and in float64.

    Warnings that its own use of numpy and torch raises are silenced: no caller can act on them.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", r".* has been traced \d+ times", RuntimeWarning)  # one trace for each shape
        phi = SimpleNamespace(**{name: importlib.import_module(module) for name, module in _MODULES.items()})
        with phi.backend.TORCH, phi.math.precision(64):
            yield phi
