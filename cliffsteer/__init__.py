"""cliffsteer: Clifford-algebra steerable PDE surrogates in PyTorch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliffsteer.algebra import CliffordAlgebra
    from cliffsteer.fields import Field, FieldSpec
    from cliffsteer.grid import Grid
    from cliffsteer.stepper import Stepper, rollout
    from cliffsteer.surrogate import Surrogate

__version__ = "0.1.0"
__all__ = ["CliffordAlgebra", "Field", "FieldSpec", "Grid", "Stepper", "Surrogate", "__version__", "rollout"]

_MODULES = {
    "CliffordAlgebra": "algebra",
    "Field": "fields",
    "FieldSpec": "fields",
    "Grid": "grid",
    "Stepper": "stepper",
    "Surrogate": "surrogate",
    "rollout": "stepper",
}


def __getattr__(name: str) -> Any:
    """Import a public name, and torch with it, when it is first asked for: the command line starts without them."""
    if name not in _MODULES:
        raise AttributeError(f"module 'cliffsteer' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"cliffsteer.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
