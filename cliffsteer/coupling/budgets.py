"""Budgets: guards of what a surrogate adds to a total over all of its steps, each of which may be small."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from cliffsteer.coupling.guards import Guard
from cliffsteer.fields import FieldSpec
from cliffsteer.stepper import Parameters


class Budget(ABC):
    """What the steps of a surrogate have added to a total since its trajectory began.

    Steps of the solver do not count, whatever they add, nor does what a projection around the coupling takes back. A
    budget that is spent is not refilled: from then on only steps that bring the total back pass, and the solver does
    the others.

    Args:
        spec: the fields.
        field: name of the field.
        scale: s, the root mean square of the field in the data, in its unit.
    """

    kind: ClassVar[str]
    fixed = False

    def __init__(self, spec: FieldSpec, field: str, scale: float):
        self.name, self.threshold = f"{self.kind}:{field}", math.inf
        self.slot, self.scale = spec.slots[field], scale

    @abstractmethod
    def total(self, frames: Tensor) -> Tensor:
        """The total of the frame, (batch, blade, *grid), relative to the scale; shape (batch, number)."""

    @abstractmethod
    def size(self, spent: Tensor) -> Tensor:
        """How bad it is to have added this, (batch, number); shape (batch,)."""

    def _field(self, frames: Tensor) -> Tensor:
        return frames[:, self.slot.start : self.slot.stop]

    def added(self, before: Tensor, proposed: Tensor) -> Tensor:
        """What the proposed frames add, shape (batch, number)."""
        return self.total(proposed[:, -1].double()) - self.total(before[:, -1].double())

    def score(self, before: Tensor, proposed: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The size of what these frames alone add, shape (batch,)."""
        return self.size(self.added(before, proposed))


class EnergyBudget(Budget):
    """Growth of a field's energy, max(0, Σ ⟨|u₁|²⟩ − ⟨|u₀|²⟩) / s², the sum over the surrogate's steps.

    Loss is no fault here: friction loses energy. What was lost may be gained again.

    Args:
        spec: the fields.
        field: name of the field.
        scale: s, the root mean square of the field in the data, in its unit.
    """

    kind = "energy_budget"

    def total(self, frames: Tensor) -> Tensor:
        """⟨|u|²⟩ / s², shape (batch, 1)."""
        return _mean(self._field(frames).square()).sum(1, keepdim=True) / self.scale**2

    def size(self, spent: Tensor) -> Tensor:
        """The growth, shape (batch,)."""
        return spent[:, 0].clamp_min(0)


class ChargeBudget(Budget):
    """Drift of a field's mean, |Σ ⟨u₁⟩ − ⟨u₀⟩| / s, the sum over the surrogate's steps: charge, mass or momentum.

    Args:
        spec: the fields.
        field: name of the field.
        scale: s, the root mean square of the field in the data, in its unit.
    """

    kind = "charge_budget"

    def total(self, frames: Tensor) -> Tensor:
        """⟨u⟩ / s, shape (batch, component)."""
        return _mean(self._field(frames)) / self.scale

    def size(self, spent: Tensor) -> Tensor:
        """The drift, shape (batch,)."""
        return spent.norm(dim=1)


def score_all(
    guards: Sequence[Guard],
    before: Tensor,
    proposed: Tensor,
    parameters: Parameters | None,
    spent: Mapping[str, Tensor],
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Scores of all guards, and of every budget what is spent if the frames are accepted.

    Args:
        guards: the guards.
        before: frames that the surrogate read, shape (batch, time, blade, *grid).
        proposed: the frames it predicts, shape (batch, future, blade, *grid).
        parameters: parameter fields by name.
        spent: what the surrogate's earlier steps added, by the budget's name, (batch, number); nothing where it is
            missing.

    Returns:
        A score (batch,) for each guard, and what is spent by the budgets' names.
    """
    scores, after = [], {}
    for guard in guards:
        if isinstance(guard, Budget):
            added = guard.added(before, proposed)
            after[guard.name] = added + spent[guard.name] if guard.name in spent else added
            scores.append(guard.size(after[guard.name]))
        else:
            scores.append(guard.score(before, proposed, parameters))
    return scores, after


def _mean(values: Tensor) -> Tensor:
    """Mean over cells, (batch, component)."""
    return values.flatten(2).mean(2)
