"""Layers and networks are captured whole by torch.compile."""

import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.models import create
from cliffsteer.nn import MVGELU, CliffordSteerableConv, GeometricProductLayer, MVLayerNorm, MVLinear, ProductGELU

PLANE = CliffordAlgebra((1, 1))
SMALL = {"kernel_options": {"hidden_channels": 3, "layers": 2}}
MODULES = {
    "linear": lambda: MVLinear(PLANE, 2, 2),
    "product": lambda: GeometricProductLayer(PLANE, 2, 2),
    "product nonlinearity": lambda: ProductGELU(PLANE, 2),
    "norm": lambda: MVLayerNorm(PLANE, 2),
    "gelu": MVGELU,
    "convolution, implicit": lambda: CliffordSteerableConv(PLANE, 2, 2, 3, strategy="direct", **SMALL),
    "convolution, complete": lambda: CliffordSteerableConv(PLANE, 2, 2, 3, kernel="complete", strategy="spectral"),
    "network": lambda: create(
        "csresnet", PLANE, 2, 1, hidden_channels=2, blocks=(1,), kernel_size=3, kernel="complete"
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_no_graph_breaks(name):
    module = MODULES[name]()
    x = torch.randn(1, 2, 4, 8, 8)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), module(x), atol=1e-5)
