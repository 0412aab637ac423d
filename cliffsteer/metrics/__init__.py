"""Metrics of predicted frames: torchmetrics that stream, with sums as their only states, so that shards can be merged.

Every metric takes ``update(prediction, truth)`` (`Drifts` the frame before as well), frames (batch, lead time, blade,
*grid) in physical units, and gives JSON-ready numbers, ``{"fields": {field: {metric: [value per lead time]}}, ...}``.
"""

from cliffsteer.metrics.correlation import CorrelationTime
from cliffsteer.metrics.divergence import Divergence
from cliffsteer.metrics.drift import Drifts
from cliffsteer.metrics.errors import FieldErrors
from cliffsteer.metrics.spectrum import SpectralErrors
from cliffsteer.metrics.stability import StableSteps

__all__ = ["CorrelationTime", "Divergence", "Drifts", "FieldErrors", "SpectralErrors", "StableSteps"]
