"""Statistics of a dataset that keep equivariance: one scale per field, a mean for scalars only.

Sums run in float64, frame by frame in a fixed order and on one thread, so the result is the same every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cliffsteer.datasets.windows import TrajectoryDataset
from cliffsteer.normalization import Normalization

_BLOCK = 8  # frames read at once


@dataclass
class Moments:
    """Count, mean and Σ(x - mean)² of a stream of numbers (Chan, Golub and LeVeque, 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """Take in more numbers."""
        values = values.astype(np.float64).ravel()
        mean = float(values.mean())
        squares = float(np.square(values - mean).sum())
        total = self.count + values.size
        shift = mean - self.mean
        self.squares += squares + shift * shift * self.count * values.size / total
        self.mean += shift * values.size / total
        self.count = total

    @property
    def rms(self) -> float:
        """Root mean square; 0 of nothing."""
        return float(np.sqrt(self.squares / self.count + self.mean**2)) if self.count else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 when it is below what float32 can tell from a constant."""
        deviation = float(np.sqrt(self.squares / self.count))
        return deviation if deviation > np.finfo(np.float32).eps * abs(self.mean) else 0.0


def compute_statistics(trajectories: TrajectoryDataset) -> Normalization:
    """Scales of the fields of a split, usually the training split.

        scale   standard deviation for scalars, RMS over components, space, time and trajectories for others
        mean    for scalars, else none
        delta   RMS of the change from one frame to the next
        parameter scale   RMS over components and trajectories

    A field that never differs from zero (a scalar: from a constant; a delta: at all) gets scale 1.

    Args:
        trajectories: read once from beginning to end, a few frames at a time.

    Raises:
        ValueError: damaged files, or NaN or infinite values in them.
    """
    spec = trajectories.spec
    values = {field.name: Moments() for field in spec.dynamic}
    changes = {field.name: Moments() for field in spec.dynamic}
    for trajectory in range(trajectories.n_trajectories):
        for start in range(0, trajectories.n_frames, _BLOCK):
            before = min(start, 1)  # the frame before the block, for its change
            frames = trajectories.read(trajectory, start - before, min(start + _BLOCK, trajectories.n_frames)).numpy()
            for field in spec.dynamic:
                slot = spec.slots[field.name]
                part = frames[:, slot.start : slot.stop].astype(np.float64)
                values[field.name].add(part[before:])
                if len(part) > 1:
                    changes[field.name].add(np.diff(part, axis=0))
    packed = trajectories.parameters.double()
    parameters = {name: float(value.square().mean().sqrt()) for name, value in spec.unpack_parameters(packed).items()}
    scalars = [field.name for field in spec.dynamic if field.grade == 0]
    return Normalization(
        spec,
        scales={name: (m.deviation if name in scalars else m.rms) or 1.0 for name, m in values.items()},
        means={name: values[name].mean for name in scalars},
        deltas={name: m.rms or 1.0 for name, m in changes.items()},
        parameter_scales={name: value or 1.0 for name, value in parameters.items()},
    )
