"""Layers for multivector fields in the layout (batch, channel, blade, *grid)."""

from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.cegnn import CEGNN
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.kernels import CompleteKernel, ImplicitKernel
from cliffsteer.nn.linear import MVLinear
from cliffsteer.nn.norm import GradeNorm, MVLayerNorm, ReferenceLayerNorm
from cliffsteer.nn.padding import Padding
from cliffsteer.nn.product import GeometricProductLayer, WeightedProduct

__all__ = [
    "CEGNN",
    "MVGELU",
    "CliffordSteerableConv",
    "CompleteKernel",
    "GeometricProductLayer",
    "GradeNorm",
    "ImplicitKernel",
    "MVLayerNorm",
    "MVLinear",
    "Padding",
    "ReferenceLayerNorm",
    "WeightedProduct",
]
