"""Layers for multivector fields in the layout (batch, channel, blade, *grid)."""

from cliffsteer.nn.activation import MVGELU
from cliffsteer.nn.cegnn import CEGNN
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.fourier import SteerableSpectralConv
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
    "ImplicitKernel",
    "MVLayerNorm",
    "MVLinear",
    "Padding",
    "ProductGELU",
    "ReferenceLayerNorm",
    "SteerableSpectralConv",
    "Upsample",
    "WeightedProduct",
]
