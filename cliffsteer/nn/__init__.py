"""Layers for multivector fields in the layout (batch, channel, blade, *grid)."""

from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.cegnn import CEGNN
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.fourier import SteerableSpectralConv
from cliffsteer.nn.group_conv import GroupConv, LiftingConv, ProjectionConv, RegularNorm
from cliffsteer.nn.group_spectral import GroupSpectralConv
from cliffsteer.nn.kernels import CompleteKernel, ConditionalKernel, ImplicitKernel
from cliffsteer.nn.linear import MVLinear
from cliffsteer.nn.norm import GradeNorm, MVLayerNorm, ReferenceLayerNorm
from cliffsteer.nn.padding import Padding
from cliffsteer.nn.product import ChannelProduct, GeometricProductLayer, ProductGELU, WeightedProduct
from cliffsteer.nn.resample import CliffordSteerableConvTranspose, Downsample, Upsample

__all__ = [
    "CEGNN",
    "MVGELU",
    "ChannelProduct",
    "CliffordSteerableConv",
    "CliffordSteerableConvTranspose",
    "CompleteKernel",
    "ConditionalKernel",
    "Downsample",
    "GeometricProductLayer",
    "GradeNorm",
    "GroupConv",
    "GroupSpectralConv",
    "ImplicitKernel",
    "LiftingConv",
    "MVLayerNorm",
    "MVLinear",
    "Padding",
    "ProductGELU",
    "ProjectionConv",
    "ReferenceLayerNorm",
    "RegularNorm",
    "SteerableSpectralConv",
    "Upsample",
    "WeightedProduct",
]
