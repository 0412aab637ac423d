"""cliffsteer: Clifford-algebra steerable PDE surrogates in PyTorch."""

from typing import TYPE_CHECKING, Any

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.stepper import Stepper, rollout

if TYPE_CHECKING:
    from cliffsteer.surrogate import Surrogate

__version__ = "0.1.0"
__all__ = ["CliffordAlgebra", "Field", "FieldSpec", "Grid", "Stepper", "Surrogate", "__version__", "rollout"]


def __getattr__(name: str) -> Any:
    """Import `Surrogate`, which needs the models, when it is first asked for."""
    if name == "Surrogate":
        from cliffsteer.surrogate import Surrogate

        return Surrogate
    raise AttributeError(f"module 'cliffsteer' has no attribute {name!r}")
