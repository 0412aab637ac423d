"""Couplings of solvers and surrogates, each a Stepper.

| coupling | one step |
| --- | --- |
| the surrogate itself | the surrogate alone ("replace") |
| `Alternate` | k frames from the solver, then m from the surrogate |
| `Correct` | a coarse solver's frame, then a learned correction of it |
| `CoarseToFine` | m frames of a surrogate on a coarse grid, then k of the solver on the fine one |
| `Predictor` | a frame of the solver, whose pressure solve starts from the surrogate's |
| `Guarded` | the surrogate, checked by guards; the solver for every sample that trips one |

`Repeated`, `Refined`, `Rescaled`, `at`, `Wrapped` and `Program` bring other time steps, grids and scales, functions and
exported programs into them.
"""

from cliffsteer.coupling.calibration import calibrate, load_guards, save_guards
from cliffsteer.coupling.checkpointing import checkpointed_rollout
from cliffsteer.coupling.coarse import CoarseToFine, Refined
from cliffsteer.coupling.correct import Correct
from cliffsteer.coupling.elsewhere import at
from cliffsteer.coupling.guarded import Event, Guarded
from cliffsteer.coupling.predictor import Predictor
from cliffsteer.coupling.program import Program
from cliffsteer.coupling.rescaled import Rescaled
from cliffsteer.coupling.turns import Alternate, Repeated
from cliffsteer.coupling.wrapped import Wrapped

__all__ = [
    "Alternate",
    "CoarseToFine",
    "Correct",
    "Event",
    "Guarded",
    "Predictor",
    "Program",
    "Refined",
    "Repeated",
    "Rescaled",
    "Wrapped",
    "at",
    "calibrate",
    "checkpointed_rollout",
    "load_guards",
    "save_guards",
]
