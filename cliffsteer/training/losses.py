"""Losses: how a training step asks the network, once or on its own output, and what it makes of the errors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cliffsteer.fields import FieldSpec
from cliffsteer.suggestions import question
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.config import LossConfig
from cliffsteer.training.physics import FLOOR, Divergence, Energy, Sobolev, SpectralEnergy, blade_means


class Criterion(nn.Module):
    """What an error counts: the weighted mean over fields of the mean squared error, and physics terms.

        L = Σ_f w_f ⟨(û_f − u_f)²⟩ / s_f² / Σ_f w_f + Σ_t w_t L_t

    ⟨·⟩ is the mean over samples, time, components and cells. In normalised units s_f is the scale of the field's
    changes ("delta") or of the field ("state"), so every field counts alike whatever its unit and its number of
    components, and lengths are in cells, the smallest side of one being 1; in physical units s_f is 1. In the first
    case `Energy` takes fields over their own scale.

    Args:
        surrogate: what is trained.
        config: units and weights.

    Raises:
        ValueError: a weight for a field that is not there, no field with a weight, or a term that does not fit.
    """

    def __init__(self, surrogate: Surrogate, config: LossConfig):
        super().__init__()
        spec, grid, scales = surrogate.spec, surrogate.grid, surrogate.field_scales
        self.spec, physical = spec, config.units == "physical"
        weights = field_weights(spec, config.weights)
        self.register_buffer("weights", _per_blade(spec, weights, mean=True), False)
        self.register_buffer("unit", _per_blade(spec, surrogate.loss_scales), False)
        self.register_buffer("scale", _per_blade(spec, scales), False)
        self.physical = physical
        spacing = grid.spacing if physical else [h / min(grid.spacing) for h in grid.spacing]
        shares = torch.tensor(list(weights.values()))
        floors = torch.tensor([FLOOR * (scales[name] ** 2 if physical else 1.0) for name in weights])
        terms = {
            "divergence": (config.divergence, lambda: Divergence(spec, grid, spacing)),
            "sobolev": (config.sobolev, lambda: Sobolev(spec, grid, spacing, self.weights)),
            "energy": (config.energy, lambda: Energy(spec, shares)),
            "spectral": (config.spectral, lambda: SpectralEnergy(spec, grid, floors, shares)),
        }
        self.terms = nn.ModuleDict({name: make() for name, (weight, make) in terms.items() if weight})
        self.term_weights = {name: terms[name][0] for name in self.terms}

    def forward(self, error: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The loss, and what it is made of.

        Args:
            error: network's output minus target, in normalised units, shape (batch, time, blade, *grid).
            truth: the frames aimed at, in physical units, the same shape.

        Returns:
            "loss", and beside it, without their weights, "mse_" and the name of each field, and each term.
        """
        with torch.autocast(error.device.type, enabled=False):
            unit = _along(self.unit, error)
            scaled = error * unit if self.physical else error
            squares = blade_means(scaled.square())
            parts = {"loss": squares @ self.weights.to(squares)}
            for field in self.spec.dynamic:
                slot = self.spec.slots[field.name]
                parts[f"mse_{field.name}"] = squares[slot.start : slot.stop].mean()
            if not self.terms:
                return parts
            scale = 1.0 if self.physical else _along(self.scale, error)
            frames = (truth + error * unit) / scale, truth / scale
            for name, term in self.terms.items():
                parts[name] = term(scaled, *frames)
                parts["loss"] = parts["loss"] + self.term_weights[name] * parts[name]
            return parts

    def prediction(self, error: Tensor, truth: Tensor) -> Tensor:
        """The frames that a network with this error predicts, in physical units."""
        return truth + error * _along(self.unit, error)


class OneStep(nn.Module):
    """The frames after the true history: one call of the network.

    Args:
        surrogate: what is trained; it is not kept.
        config: the loss.
    """

    def __init__(self, surrogate: Surrogate, config: LossConfig):
        super().__init__()
        self.config, self.criterion = config, Criterion(surrogate, config)

    @property
    def calls(self) -> int:
        """Calls of the network at full length."""
        return self.config.unroll

    def length(self, step: int) -> int:
        """Calls of the network in a training step, n = 1 + ⌊(N − 1) step / curriculum⌋, N at most."""
        if not self.config.curriculum:
            return self.calls
        return min(self.calls, 1 + (self.calls - 1) * step // self.config.curriculum)

    def forward(self, surrogate: Surrogate, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """The loss of a batch of windows with `calls` · ``surrogate.future`` future frames, as `Criterion` gives it."""
        return self.call(surrogate, batch["history"], batch, 0)[0]

    def call(
        self, surrogate: Surrogate, frames: Tensor, batch: Mapping[str, Tensor], number: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One call: its loss, and the history that the next one reads."""
        truth = batch["future"][:, number * surrogate.future : (number + 1) * surrogate.future]
        error = surrogate.predict(frames, batch["parameters"]) - surrogate.target(frames, truth)
        following = torch.cat([frames, self.criterion.prediction(error, truth)], 1)[:, -surrogate.history :]
        return self.criterion(error, truth), following


class Pushforward(OneStep):
    """The last of n calls of the network on its own output, which stands for the errors it meets in a rollout.

    Only the last call gets a gradient: the network learns to correct, not to produce, what the calls before left.
    Source: Brandstetter et al., "Message passing neural PDE solvers" (ICLR 2022), section 3.1.
    """

    def forward(self, surrogate: Surrogate, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """The loss of a batch of windows."""
        frames, last = batch["history"], self.length(step) - 1
        with torch.no_grad():
            for number in range(last):
                frames = self.call(surrogate, frames, batch, number)[1]
        torch.clear_autocast_cache()  # else the last call would take weights cast without a gradient
        return self.call(surrogate, frames, batch, last)[0]


class Unrolled(OneStep):
    """The mean over n calls of the network on its own output; the gradient is cut after every `detach` calls."""

    def forward(self, surrogate: Surrogate, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """The loss of a batch of windows."""
        frames, calls, detach = batch["history"], [], self.config.detach
        for number in range(self.length(step)):
            if number and detach and number % detach == 0:
                frames = frames.detach()
            parts, frames = self.call(surrogate, frames, batch, number)
            calls.append(parts)
        return {name: torch.stack([parts[name] for parts in calls]).mean() for name in calls[0]}


LOSSES = {"one_step": OneStep, "pushforward": Pushforward, "unrolled": Unrolled}
"""Losses by the names that configurations use."""


def create_loss(surrogate: Surrogate, config: LossConfig) -> OneStep:
    """The loss of this config.

    Raises:
        ValueError: an option that does not fit the surrogate's fields or grid.
    """
    return LOSSES[config.name](surrogate, config)


def field_weights(spec: FieldSpec, weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of each dynamic field in the mean over fields; they sum to 1.

    Raises:
        ValueError: a name that is no dynamic field, or no weight above 0.
    """
    names = [field.name for field in spec.dynamic]
    for name in weights:
        if name not in names:
            raise ValueError(
                f"`loss.weights` names {name!r}, but the fields are {', '.join(names)}.{question(name, names)}"
            )
    given = {name: float(weights.get(name, 1.0)) for name in names}
    total = math.fsum(given.values())
    if not total > 0:
        raise ValueError("`loss.weights` is 0 for every field: there is nothing to train on.")
    return {name: weight / total for name, weight in given.items()}


def _per_blade(spec: FieldSpec, values: Mapping[str, float], mean: bool = False) -> Tensor:
    """A field's number on each of its blades, with ``mean`` over their count; on blades without a field 1, or 0."""
    numbers = torch.zeros(spec.n_blades) if mean else torch.ones(spec.n_blades)
    for field in spec.dynamic:
        slot = spec.slots[field.name]
        numbers[slot.start : slot.stop] = values[field.name] / (slot.size if mean else 1)
    return numbers


def _along(numbers: Tensor, frames: Tensor) -> Tensor:
    return numbers.to(frames).view(-1, *[1] * (frames.ndim - 3))
