"""Augmentation of training batches by the symmetries of the lattice, for networks that do not have them built in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.transformed import turning_symmetries


class RandomSymmetries:
    """Turns each window of a batch by a random symmetry of the lattice: cells move, blades and parameters turn along.

    The symmetries are the signed permutations of axes that keep metric, grid and boundaries (quarter turns and
    reflections; 8 on a square grid, 48 on a cube): exact, without interpolation. On blocks of spacetime they keep the
    direction of time, for what is turned must still follow from what comes before. Which one a window gets depends on
    the seed, the step and its place in the step's windows alone, so a training that starts again at any step sees what
    an unbroken one would have seen there.

    Args:
        spec: the fields.
        grid: the grid.
        seed: of the choice.

    Example:
        >>> from cliffsteer import Field
        >>> spec = FieldSpec((1, 1), [Field("velocity", 1), Field("gravity", 1, role="parameter")])
        >>> turn = RandomSymmetries(spec, Grid((8, 8)), seed=0)
        >>> batch = {"history": torch.zeros(4, 2, 4, 8, 8), "parameters": torch.zeros(4, 4)}
        >>> turn(batch, step=0)["history"].shape
        torch.Size([4, 2, 4, 8, 8])
    """

    def __init__(self, spec: FieldSpec, grid: Grid, seed: int):
        self.algebra, self.seed = spec.algebra, seed
        identity = next(iter(lattice_symmetries(spec.algebra, grid)))
        self.elements = [identity, *turning_symmetries(spec.algebra, grid)]

    def __call__(self, batch: Mapping[str, Tensor], step: int, part: int = 0) -> dict[str, Tensor]:
        """The batch with its windows turned.

        Args:
            batch: frames "history" and "future", (batch, time, blade, *grid), packed "parameters" (batch, blade); what
                is missing, and any further key, is left as it is.
            step: of the training.
            part: which part of the step's windows these are, of those that devices share or that are accumulated.
        """
        windows = len(next(iter(batch.values())))
        chosen = self.choice(step, windows, part)
        out = dict(batch)
        for name in {"history", "future", "parameters"} & batch.keys():
            turned = torch.empty_like(batch[name])
            for number in chosen.unique().tolist():
                element, here = self.elements[number], (chosen == number).nonzero().squeeze(1).to(turned.device)
                some = batch[name].index_select(0, here)
                act = element.turn(self.algebra, some) if name == "parameters" else element.act(self.algebra, some)
                turned.index_copy_(0, here, act.contiguous())
            out[name] = turned
        return out

    def choice(self, step: int, windows: int, part: int = 0) -> Tensor:
        """Which symmetry each window of a step gets, as positions in ``elements``."""
        mixed = (self.seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + part) % 2**63
        generator = torch.Generator().manual_seed(mixed)
        return torch.randint(len(self.elements), (windows,), generator=generator)
