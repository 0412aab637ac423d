"""Weights of the published JAX code of "Clifford-Steerable Convolutional Neural Networks", and modules that take them.

`load_parameters` copies a flattened Flax parameter dict into our modules. `build` makes a module with the options under
which ours computes what the published code does: its clamped norms, gains, shell and padding rules. There blades are
the last axis, here axis 2; `to_reference` and `from_reference` move them. Its kernel network acts on all blades, but
only scalars and multiples of x ever occur; weights that multiply other grades (half of them in 2D) change nothing,
receive no gradient, and have no place here: they are read and left out.

Where the published code departs from its own equations: its q(x) on kernels whose size is not 2^m + 1 carries rounding,
so that points on the light cone can get q < 0 and the other sign of the shell; `build(..., rounded_q=True)` repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.models.csresnet import CSResNet
from cliffsteer.nn import (
    MVGELU,
    CliffordSteerableConv,
    GeometricProductLayer,
    GradeNorm,
    ImplicitKernel,
    MVLayerNorm,
    MVLinear,
    ReferenceLayerNorm,
)
from cliffsteer.nn.kernels.subalgebra import PATHS, SubalgebraGradeNorm
from cliffsteer.nn.norm import reference_norm

Entry = tuple[str, Tensor, Callable[[Tensor], Tensor]]
"""Flax path, our tensor, and the map from the published layout to ours."""


def load_parameters(module: nn.Module, params: Mapping[str, Any]) -> nn.Module:
    """Copy parameters of the published code into a module, in place.

    Args:
        module: an MVLinear, GradeNorm, GeometricProductLayer, ImplicitKernel, CliffordSteerableConv or CSResNet.
        params: flattened Flax path, joined by "/", -> array.

    Returns:
        The module.

    Raises:
        ValueError: a parameter is missing, left over, or of another shape; or the module was not built with the
            published code's norm and gain (``norm="reference"``, ``gain="reference"``, as `build` does).
        TypeError: a module of another kind.
    """
    _check_options(module)
    remaining = set(params)
    with torch.no_grad():
        for path, target, convert in reference_parameters(module):
            if path not in params:
                raise ValueError(f"`params` lacks {path!r}, which {type(module).__name__} needs.")
            value = convert(torch.as_tensor(np.array(params[path])))
            if value.shape != target.shape:
                raise ValueError(
                    f"`params[{path!r}]` has shape {tuple(np.shape(params[path]))}, which does not fit"
                    f" {tuple(target.shape)}: was the module built with the same channels and layers?"
                )
            target.copy_(value)
            remaining.discard(path)
    if remaining:
        raise ValueError(f"`params` has {sorted(remaining)[0]!r}, for which {type(module).__name__} has no place.")
    return module


def _check_options(module: nn.Module) -> None:
    """Raise a ValueError if a part of the module computes something else than the published code."""
    for name, part in module.named_modules():
        where = f"`module{'.' + name if name else ''}` (a {type(part).__name__})"
        if isinstance(part, GradeNorm | SubalgebraGradeNorm) and part.norm is not reference_norm:
            raise ValueError(f"{where} must be built with norm='reference', or make the module with `build`.")
        if isinstance(part, ImplicitKernel) and part.gain != "reference":
            raise ValueError(f"{where} must be built with gain='reference', or make the module with `build`.")
        if isinstance(part, MVLayerNorm):
            raise ValueError(f"{where} must be norm='reference' or 'none', or make the module with `build`.")


def reference_parameters(module: nn.Module) -> Iterator[Entry]:
    """The module's parameters under the published code's paths, in no particular order.

    Raises:
        TypeError: no such module exists there.
    """
    for kind, entries in _ENTRIES.items():
        if isinstance(module, kind):
            yield from entries(module)
            return
    raise TypeError(f"`module` is a {type(module).__name__}, which the published code does not have.")


def build(kind: str, signature: Sequence[int], config: Mapping[str, Any], rounded_q: bool = False) -> nn.Module:
    """A module that computes what the published code computes.

    Args:
        kind: "kernel", "conv", "csresnet", "fcgp", "mvlinear", "gradenorm", "mvlayernorm" or "mvgelu".
        signature: signs of the metric.
        config: the published constructor's arguments by their names there (c_in, c_out, kernel_size, num_layers,
            hidden_dim, padding_mode, ...).
        rounded_q: repeat the rounding of q(x) at the light cone.

    Returns:
        A float64 module, to be filled by `load_parameters`.

    Raises:
        ValueError: an unknown kind, or a config that lacks a key.
    """
    algebra = CliffordAlgebra(signature)
    builders: dict[str, Callable[[CliffordAlgebra, Mapping[str, Any]], nn.Module]] = {
        "kernel": lambda a, c: ImplicitKernel(a, c["c_in"], c["c_out"], c["kernel_size"], **_kernel_options(c)),
        "conv": _build_conv,
        "csresnet": _build_csresnet,
        "fcgp": lambda a, c: GeometricProductLayer(
            a, c["in_features"], c["out_features"], c["include_first_order"], c["normalization"], norm="reference"
        ),
        "mvlinear": _build_linear,
        "gradenorm": lambda a, c: GradeNorm(a, c["features"], norm="reference"),
        "mvlayernorm": lambda a, c: ReferenceLayerNorm(a, c["features"]),
        "mvgelu": lambda a, c: MVGELU(),
    }
    if kind not in builders:
        raise ValueError(f"`kind` (={kind!r}) must be one of {', '.join(map(repr, builders))}.")
    try:
        module = builders[kind](algebra, config).double()
    except KeyError as error:
        raise ValueError(f"`config` lacks {error}, which a {kind!r} of the published code has.") from None
    if rounded_q:
        for kernel in module.modules():
            if isinstance(kernel, ImplicitKernel):
                _round_q(kernel)
    return module


def to_reference(x: Tensor) -> Tensor:
    """Move the blade axis from ours (2) to theirs (last)."""
    return x.movedim(2, -1)


def from_reference(x: Tensor) -> Tensor:
    """Move the blade axis from theirs (last) to ours (2)."""
    return x.movedim(-1, 2)


# ------------------------------------------------------------------------------------------------------ modules


def _kernel_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_channels": config["hidden_dim"],
        "layers": config["num_layers"],
        "norm": "reference",
        "gain": "reference",
        "allow_even": True,
    }


def _padding(mode: str, padded: bool = True) -> str:
    """Our name of a padding rule there: "SAME" in any case, or a mode of numpy's pad."""
    if mode.lower() == "same":
        return "xla_same"
    if not padded:
        return "valid"
    return {"wrap": "periodic", "constant": "zeros"}.get(mode, mode)


def _build_linear(algebra: CliffordAlgebra, config: Mapping[str, Any]) -> nn.Module:
    bias_dims = list(config.get("bias_dims") or [])
    if bias_dims not in ([], [0]):
        raise ValueError(f"`bias_dims` (={bias_dims}) must be [0] or empty: a bias on other blades is not equivariant.")
    return MVLinear(
        algebra, config["in_features"], config["out_features"], bool(bias_dims), config.get("subspaces", True)
    )


def _build_conv(algebra: CliffordAlgebra, config: Mapping[str, Any]) -> nn.Module:
    return CliffordSteerableConv(
        algebra,
        config["c_in"],
        config["c_out"],
        config["kernel_size"],
        kernel_options=_kernel_options(config),
        stride=config.get("stride", 1),
        padding=_padding(config["padding_mode"], config["padding"]),
        bias=config.get("bias", True),
    )


def _build_csresnet(algebra: CliffordAlgebra, config: Mapping[str, Any]) -> nn.Module:
    time_in_grid = config.get("make_channels", False)
    return CSResNet(
        algebra,
        1 if time_in_grid else config["time_history"],
        1 if time_in_grid else config["time_future"],
        config["hidden_channels"],
        config["blocks"],
        config["kernel_size"],
        kernel_options=_kernel_options(
            {"hidden_dim": config["kernel_hidden_dim"], "num_layers": config["kernel_num_layers"]}
        ),
        norm="reference" if config["norm"] else "none",
        padding=_padding(config["padding_mode"]),
        pointwise="kernel",
    )


def _round_q(kernel: ImplicitKernel) -> None:
    """Let q be what fused multiply-adds over rounded positions give: q <- fma(±x_i, x_i, q), i = 0, 1, ..."""
    values = []
    for offset in kernel.basis.offsets.tolist():
        q = 0.0
        for sign, steps in zip(kernel.algebra.signature, offset, strict=True):
            x = steps / max(kernel.kernel_size // 2, 1)
            q = float(Fraction(sign * x) * Fraction(x) + Fraction(q))
        values.append(q)
    kernel.rounded_q, kernel.orbit = torch.tensor(values, dtype=torch.float64).unique(return_inverse=True)


# ------------------------------------------------------------------------------------------------- paths there


def _same(x: Tensor) -> Tensor:
    return x


def _scalar_and_vector(x: Tensor) -> Tensor:
    """Of weights per grade (last axis), those that act in the subalgebra span{1, x}; the others are never used."""
    return x[..., :2]


def _paths(algebra: CliffordAlgebra, wanted: Sequence[tuple[int, int, int]]) -> Callable[[Tensor], Tensor]:
    index = [algebra.paths.index(path) for path in wanted]
    return lambda x: x[..., index]


def _under(prefix: str, module: nn.Module) -> Iterator[Entry]:
    for path, target, convert in reference_parameters(module):
        yield f"{prefix}/{path}", target, convert


def _linear(m: MVLinear) -> Iterator[Entry]:
    yield "weight", m.weight, _same
    if m.bias is not None:
        yield "bias", m.bias, torch.flatten


def _grade_norm(m: GradeNorm) -> Iterator[Entry]:
    yield "factor", m.factor, lambda x: x.squeeze(0)


def _product_layer(m: GeometricProductLayer) -> Iterator[Entry]:
    yield "WeightedCayley_0/weight", m.product.weight, _same
    yield from _under("MVLinear_0", m.right)
    if m.linear is not None:
        yield from _under("MVLinear_1", m.linear)
    if isinstance(m.norm, GradeNorm):
        yield from _under("GradeNorm_0", m.norm)


def _kernel(m: ImplicitKernel) -> Iterator[Entry]:
    for i, layer in enumerate(m.network.products):
        prefix = f"KernelNetwork_0/FullyConnectedSteerableGeometricProductLayer_{i}"
        yield f"{prefix}/WeightedCayley_0/weight", layer.weight, _paths(m.algebra, PATHS)
        yield f"{prefix}/MVLinear_0/weight", layer.right.weight, _scalar_and_vector
        yield f"{prefix}/MVLinear_1/weight", layer.linear.weight, _scalar_and_vector
        yield f"{prefix}/MVLinear_1/bias", layer.linear.bias, torch.flatten
        yield f"{prefix}/GradeNorm_0/factor", layer.norm.factor, lambda x: _scalar_and_vector(x.squeeze(0))
    for i, norm in enumerate(m.network.norms):
        yield f"KernelNetwork_0/GradeNorm_{i}/factor", norm.factor, lambda x: _scalar_and_vector(x.squeeze(0))
    n = m.algebra.dim
    head = [(0, k, k) for k in range(n + 1)]
    head += [(1, k + 1, k) for k in range(n)] + [(1, k - 1, k) for k in range(1, n + 1)]
    yield "ScalarShell_0/kernel_width", m.shell_width, lambda x: _scalar_and_vector(x) + 0.4
    yield "WeightedCayley_0/weight", m.weight, _paths(m.algebra, head)
    yield "rel_pos_sigma", m.position_width, lambda x: x.reshape(())


def _conv(m: CliffordSteerableConv) -> Iterator[Entry]:
    yield from _under("CliffordSteerableKernel_0", m.kernel)
    if m.bias is not None:
        yield "bias", m.bias, torch.flatten


def _csresnet(m: CSResNet) -> Iterator[Entry]:
    pointwise = [layer for part in (m.stem, m.head) for layer in part if isinstance(layer, CliffordSteerableConv)]
    for i, layer in enumerate(pointwise):
        yield from _under(f"CliffordSteerableConv_{i}", layer)
    for i, block in enumerate(m.blocks):
        yield from _under(f"CSBasicBlock_{i}/CliffordSteerableConv_0", block.conv1)
        yield from _under(f"CSBasicBlock_{i}/CliffordSteerableConv_1", block.conv2)


def _nothing(m: nn.Module) -> Iterator[Entry]:
    return iter(())


_ENTRIES: dict[type[nn.Module], Callable[[Any], Iterator[Entry]]] = {
    MVLinear: _linear,
    GradeNorm: _grade_norm,
    GeometricProductLayer: _product_layer,
    ImplicitKernel: _kernel,
    CliffordSteerableConv: _conv,
    CSResNet: _csresnet,
    MVGELU: _nothing,
    ReferenceLayerNorm: _nothing,
}
