"""cliffsteer: Clifford-algebra steerable PDE surrogates in PyTorch."""

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.stepper import Stepper, rollout

__version__ = "0.1.0"
__all__ = ["CliffordAlgebra", "Field", "FieldSpec", "Grid", "Stepper", "__version__", "rollout"]
