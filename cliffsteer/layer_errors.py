"""Errors of a network's layers under group elements, each layer fed the input that it meets inside the network.

error(f, g) = ‖f(gx) − g f(x)‖ / max(‖f(x)‖, ‖g f(x)‖)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.elements import Element
from cliffsteer.kernel_symmetry import Turn
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.group_conv import GroupConv
from cliffsteer.nn.group_spectral import GroupSpectralConv
from cliffsteer.nn.padding import Padding
from cliffsteer.surrogate import Surrogate
from cliffsteer.testing import equivariance_errors

EXACT = 1e-12
"""An error in float64 up to this is rounding."""

Row = dict[str, Any]
"""What is known of one layer, JSON-ready."""

_NO_LAYER = (Padding, nn.ModuleList, nn.ModuleDict)


def layer_errors(
    surrogate: Surrogate, inputs: tuple[Tensor, Tensor], elements: Sequence[Element], turns: Sequence[Turn]
) -> list[Row]:
    """Errors of a surrogate, then of the layers of its network, in order.

    A layer is a module that maps one multivector field to another and is neither a mere container nor part of a
    convolution. It is measured when it is first called.

    Args:
        surrogate: the surrogate, in the precision of the inputs.
        inputs: a history and packed parameters.
        elements: symmetries and translations.
        turns: rotations and boosts, which act on the blades of pointwise layers.

    Returns:
        For each layer: what `errors_of` returns; "rescales", whether its output has another grid, where no translation
        by one cell can be compared; and "turns", its errors under rotations and boosts (None: it is not pointwise).
    """
    algebra, found, busy = surrogate.spec.algebra, {}, False
    (frames, parameters), modules = inputs, _candidates(surrogate.network)

    def hook_of(name: str) -> Callable[[nn.Module, tuple, Any], None]:
        def measure(module: nn.Module, arguments: tuple, output: Any) -> None:
            nonlocal busy
            if busy or name in found or len(arguments) != 1:
                return
            if not (_is_field(arguments[0], algebra) and _is_field(output, algebra)):
                return
            x, busy = arguments[0], True  # what is called from here on belongs to this measurement
            rescales = output.shape[3:] != x.shape[3:]
            tried = [replace(g, fits=g.fits and not (rescales and g.is_translation)) for g in elements]
            row = errors_of(name, module, lambda g: module(g.act(algebra, x)), output, algebra, tried)
            row |= {"rescales": rescales, "turns": None}
            if turns and not row["reach"] and _is_pointwise(module, x, output):
                matrices = [g.matrix.to(x) for g in turns]
                row["turns"] = [error for _, error in equivariance_errors(module, x, algebra, matrices)]
            found[name], busy = row, False

        return measure

    hooks = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        output = surrogate.predict(frames, parameters)
    finally:
        for hook in hooks:
            hook.remove()

    def turned(g: Element) -> Tensor:
        return surrogate.predict(g.act(algebra, frames), g.turn(algebra, parameters))

    whole = errors_of("surrogate", surrogate.network, turned, output, algebra, elements)
    whole |= {"kind": "Surrogate", "rescales": False, "turns": None}
    rows = [whole, *(found[name] for name in modules if name in found)]
    for row in rows:
        if any(other["rescales"] for other in rows if is_part(other, row)):
            row["interior"] = [None] * len(elements)  # how far it reads on the coarser grid inside is not known
    return rows


def errors_of(
    name: str,
    module: nn.Module,
    turned: Callable[[Element], Tensor],
    output: Tensor,
    algebra: CliffordAlgebra,
    elements: Iterable[Element],
) -> Row:
    """Errors of one layer.

    Args:
        name: of the layer.
        module: the layer, for what it contains.
        turned: its output on the turned input.
        output: its output.
        algebra: the algebra.
        elements: the elements.

    Returns:
        "name" and "kind"; "reach": how many cells around a point it reads at most; "outside": names of elements that
        are not in the group of one of its convolutions; "errors" for each element (None: not measured); "interior":
        the same over the cells that read no padding (None: there are none), but for norms over all points.
    """
    reach, groups = _reach(module), _groups(module)
    whole, interior = [], []
    for g in elements:
        values = []
        if g.fits:
            expected = g.act(algebra, output)
            values = [turned(g) - expected, expected, output]
        margin = reach + int(g.is_translation)
        inside = [v[(..., *[slice(margin, n - margin) for n in v.shape[3:]])] for v in values]
        whole.append(relative_error(values))
        interior.append(relative_error(inside) if all(v.numel() for v in inside) else None)
    outside = [g.name for g in elements if not all(g.is_in(algebra, group) for group in groups)]
    kind = type(module).__name__
    return {"name": name, "kind": kind, "reach": reach, "outside": outside, "errors": whole, "interior": interior}


def _groups(module: nn.Module) -> set[str]:
    """Names of the groups that the convolutions of a module are equivariant under."""
    of_kernels = {getattr(kernel, "group", "O") for kernel in kernels_of(module).values()}
    return of_kernels | {m.group for m in module.modules() if isinstance(m, GroupConv | GroupSpectralConv)}


def relative_error(values: Sequence[Tensor]) -> float | None:
    """‖first‖ over the largest norm of the others; None for none."""
    if not values:
        return None
    difference, *sizes = (float(v.norm()) for v in values)
    return difference / max(sizes) if difference and max(sizes) else difference


def kernels_of(network: nn.Module) -> dict[str, nn.Module]:
    """The kernels of a network by the names of the layers that hold them, in order."""
    return {
        name or "network": module.kernel
        for name, module in network.named_modules()
        if isinstance(getattr(module, "kernel", None), nn.Module)
    }


def is_part(other: Row, row: Row) -> bool:
    """Whether a layer is inside another one; "surrogate" holds all, "network" all but itself and the surrogate."""
    if row["name"] == "surrogate" or other["name"] in ("surrogate", "network"):
        return row["name"] == "surrogate" != other["name"]
    return row["name"] == "network" or other["name"].startswith(f"{row['name']}.")


def _candidates(network: nn.Module) -> dict[str, nn.Module]:
    """What may be a layer."""
    inside = tuple(f"{n}." for n, m in network.named_modules() if n and isinstance(m, CliffordSteerableConv))
    return {
        name or "network": module
        for name, module in network.named_modules()
        if type(module) is not nn.Sequential and not isinstance(module, _NO_LAYER) and not name.startswith(inside)
    }


def _is_field(x: Any, algebra: CliffordAlgebra) -> bool:
    return isinstance(x, Tensor) and x.ndim == 3 + algebra.dim and x.shape[2] == algebra.n_blades


def _is_pointwise(module: nn.Module, x: Tensor, output: Tensor) -> bool:
    """Whether a layer treats every point alike and by itself: it commutes with shuffling the points."""
    if output.shape[3:] != x.shape[3:]:
        return False
    order = torch.randperm(math.prod(x.shape[3:]), generator=torch.Generator().manual_seed(0)).to(x.device)
    shuffled, expected = (v.flatten(3).index_select(3, order).view(v.shape) for v in (x, output))
    return relative_error([module(shuffled) - expected, expected]) <= EXACT


def _reach(module: nn.Module) -> int:
    """How many cells away a layer reads, at most: the sum over the convolutions in it."""
    if isinstance(module, CliffordSteerableConv):
        return (module.kernel_size - 1) * module.dilation // 2
    if isinstance(module, Padding):
        return max(module.width)
    if isinstance(module, _ConvNd):
        return max((k - 1) * d for k, d in zip(module.kernel_size, module.dilation, strict=True))
    return sum(_reach(child) for child in module.children())
