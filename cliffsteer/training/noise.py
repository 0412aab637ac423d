"""Noise on the frames that a network reads in training, so that it learns to take out what should not be there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec

_SALT = 0x2545F4914F6CDD1D
"""Keeps the noise apart from what else is drawn by seed and step."""


class InputNoise:
    """Adds Gaussian noise to the history of each training window, u + level · s_f · N(0, 1); the future stays true.

    In a rollout a network reads its own errors, which have waves that no data have. Noise has all of them, and the way
    back to the true frame is what is learned. It depends on the seed, the step and the window's place in the
    step's windows alone, whatever the parts in which these come.

    Args:
        spec: the fields.
        scales: s_f, of each dynamic field, in its unit.
        level: standard deviation over the scale.
        seed: of the noise.
        parts: of the windows of a step; part p holds the windows p, p + parts, p + 2 parts, ...

    Source: Sanchez-Gonzalez et al., "Learning to simulate complex physics with graph networks" (ICML 2020).
    """

    def __init__(self, spec: FieldSpec, scales: Mapping[str, float], level: float, seed: int, parts: int = 1):
        self.seed, self.parts = seed, parts
        self.amplitude = torch.zeros(spec.n_blades)
        for field in spec.dynamic:
            slot = spec.slots[field.name]
            self.amplitude[slot.start : slot.stop] = level * scales[field.name]

    def __call__(self, batch: Mapping[str, Tensor], step: int, part: int = 0) -> dict[str, Tensor]:
        """The batch with noise on "history", (batch, time, blade, *grid)."""
        history = batch["history"]
        noise = torch.stack([self._draw(history.shape[1:], step, part + self.parts * i) for i in range(len(history))])
        amplitude = self.amplitude.view(-1, *[1] * (history.ndim - 3))
        return {**batch, "history": history + (amplitude * noise).to(history)}

    def _draw(self, shape: torch.Size, step: int, window: int) -> Tensor:
        mixed = (self.seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + window + _SALT) % 2**63
        return torch.randn(shape, generator=torch.Generator().manual_seed(mixed))
