"""Clifford group equivariant network: maps multivectors to multivectors, O(p, q)-equivariantly, without a grid."""

from __future__ import annotations

from torch import nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.checks import whole
from cliffsteer.nn.norm import GradeNorm
from cliffsteer.nn.product import GeometricProductLayer


class CEGNN(nn.Sequential):
    """[GeometricProductLayer, GradeNorm, MVGELU] × (layers - 1), then GeometricProductLayer (Ruhe et al. 2023).

    For point data (charges, particles, poses), and the network inside the implicit kernel.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        hidden_channels: multivectors between the layers.
        layers: number of geometric product layers.
        norm: norm of the GradeNorms, "smooth" or "reference".

    Shape:
        (batch, in_channels, blade, ...) -> (batch, out_channels, blade, ...).

    Raises:
        ValueError: fewer than one layer or channel.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 16,
        layers: int = 4,
        norm: str = "smooth",
    ):
        layers, hidden_channels = whole("layers", layers), whole("hidden_channels", hidden_channels)
        widths = [in_channels, *[hidden_channels] * (layers - 1), out_channels]
        modules: list[nn.Module] = []
        for i in range(layers):
            modules.append(GeometricProductLayer(algebra, widths[i], widths[i + 1], norm=norm))
            if i < layers - 1:
                modules += [GradeNorm(algebra, widths[i + 1], norm), MVGELU()]
        super().__init__(*modules)
