"""Networks for inference: convolutions with the kernels they have learned, without what made these kernels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import check_reach, convolve
from cliffsteer.nn.checks import check_grid_axes, whole
from cliffsteer.nn.conv import CliffordSteerableConv
from cliffsteer.nn.frozen_spectrum import FrozenSpectralConv, on_all_blades
from cliffsteer.nn.linear import MVLinear, check_channels
from cliffsteer.nn.resample import CliffordSteerableConvTranspose, Downsample, Upsample
from cliffsteer.nn.strategy import STRATEGIES


def freeze(
    module: nn.Module,
    strategy: str = "direct",
    grid: Sequence[int] | None = None,
    example: Tensor | tuple[Any, ...] | None = None,
) -> nn.Module:
    """A copy of a network that computes the same and can no longer be trained.

    Kernel networks and radial values are gone; what they gave is kept in buffers, in the precision of the weights:

        direct      the kernel, c_in · c_out · 4ⁿ · kⁿ numbers, for grids of any size; this is what to export
        spectral    the kernel's spectrum at one frequency per orbit, for one grid: c_in · c_out · 4ⁿ numbers for each
                    of about (N/2)ⁿ/n! orbits, whatever the kernel's size
        auto        for each convolution what its `strategy_for` says of its input

    Both are made of PyTorch's own operators and need nothing of cliffsteer once exported. Convolutions that have no
    spectrum (even kernels, kernels that are no `SteerableKernel`), or a single point, are direct in any case.

    Args:
        module: a network or a layer; it is left as it is.
        strategy: "direct", "spectral" or "auto".
        grid: cells on each axis of the grid that all convolutions work on, for "spectral" and "auto", which supposes a
            batch of 1.
        example: instead of ``grid`` an input of the module, or a tuple of its inputs, for networks that change the grid
            on the way: a copy is run once to see what the convolutions are given.

    Returns:
        The frozen network, in eval mode; no parameter of it requires a gradient. Its ``state_dict`` is its own.

    Raises:
        ValueError: an unknown strategy; neither or both of ``grid`` and ``example``, where one is needed; a grid that
            does not fit, or that layers of the network change; a kernel that depends on the input; a layer whose
            forward is its own or that has hooks, which would be lost; a spectrum asked of a convolution that works on
            several grids.

    Example:
        >>> from cliffsteer import CliffordAlgebra
        >>> from cliffsteer.models import CSResNet
        >>> network = CSResNet(CliffordAlgebra((1, 1)), 1, 1, hidden_channels=2, blocks=(1,), kernel_size=5)
        >>> frozen = freeze(network, "spectral", grid=(16, 16))
        >>> frozen(torch.zeros(1, 1, 4, 16, 16)).shape
        torch.Size([1, 1, 4, 16, 16])
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` (={strategy!r}) must be one of {', '.join(map(repr, STRATEGIES))}.")
    convolutions = _convolutions(module)
    _refuse_what_would_be_lost(module)
    for name, conv in convolutions.items():
        if getattr(conv.kernel, "conditional", False):
            raise ValueError(
                f"`module` cannot be frozen: the kernel of {name or 'the convolution'}, a {type(conv.kernel).__name__},"
                " depends on the input, so that there is no one kernel to keep."
            )
    inputs = {} if strategy == "direct" else _inputs(module, grid, example)
    frozen: dict[int, Any] = {}
    with torch.no_grad():
        for name, conv in convolutions.items():
            taken = _grid_of_spectrum(name, conv, strategy, inputs.get(name, []))
            device = next(conv.parameters(), torch.empty(0)).device
            with torch.autocast(device.type, enabled=False):  # kernels are kept in full precision
                frozen[id(conv)] = FrozenConv(conv) if taken is None else FrozenSpectralConv(conv, taken)
        for layer in module.modules():
            if type(layer) is MVLinear:
                frozen[id(layer)] = FrozenLinear(layer)
        # `deepcopy` takes these for copies that it has made already
        return copy.deepcopy(module, frozen).eval().requires_grad_(False)


class FrozenConv(nn.Module):
    """A `CliffordSteerableConv` with its kernel in a buffer: g(x) = Σ_v K(v) f(x + v) + b.

    Args:
        conv: the convolution to freeze.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid').
    """

    frozen: ClassVar[bool] = True

    def __init__(self, conv: CliffordSteerableConv):
        super().__init__()
        self.algebra, self.in_channels, self.out_channels = conv.algebra, conv.in_channels, conv.out_channels
        self.stride, self.dilation = conv.stride, conv.dilation
        self.padding = copy.deepcopy(conv.padding)
        self.register_buffer("kernel", conv.kernel().detach().clone())
        self.register_buffer("bias", on_all_blades(conv.bias, conv.algebra, conv.algebra.dim))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a field of multivectors."""
        check_channels(self, x, self.in_channels, self.algebra)
        check_grid_axes(x, self.algebra)
        if not self.padding.xla and not torch.compiler.is_compiling():
            check_reach(x.shape[3:], self.padding.reach + 1)
        y = convolve(self.padding(x).flatten(1, 2), self.kernel, self.stride, self.dilation)
        y = y.unflatten(1, (self.out_channels, self.algebra.n_blades))
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Kernel and steps."""
        return f"kernel={tuple(self.kernel.shape)}, stride={self.stride}, dilation={self.dilation}"


class FrozenLinear(nn.Module):
    """An `MVLinear` with one matrix per blade in a buffer.

    Args:
        linear: the map to freeze.

    Shape:
        (batch, in_channels, blade, *grid) -> (batch, out_channels, blade, *grid).
    """

    frozen: ClassVar[bool] = True

    def __init__(self, linear: MVLinear):
        super().__init__()
        self.algebra: CliffordAlgebra = linear.algebra
        weight = linear.weight.detach()
        if linear.per_grade:
            weight = weight.index_select(2, linear.grade_of_blade)
        else:
            weight = weight.unsqueeze(2).expand(-1, -1, linear.algebra.n_blades)
        self.register_buffer("weight", weight.clone())
        self.register_buffer("bias", on_all_blades(linear.bias, linear.algebra, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map to multivectors with channels on axis 1 and blades on axis 2."""
        check_channels(self, x, self.weight.shape[1], self.algebra)
        y = torch.einsum("oik,bik...->bok...", self.weight, x)
        return y if self.bias is None else y + self.bias.view(*self.bias.shape, *[1] * (x.ndim - 3))

    def extra_repr(self) -> str:
        """Shape of the matrices."""
        return f"weight={tuple(self.weight.shape)}"


def _convolutions(module: nn.Module) -> dict[str, CliffordSteerableConv]:
    return {name: m for name, m in module.named_modules() if isinstance(m, CliffordSteerableConv)}


def _inputs(
    module: nn.Module, grid: Sequence[int] | None, example: Tensor | tuple[Any, ...] | None
) -> dict[str, list[Tensor]]:
    """What each convolution is given, by its name: tensors of the right shape, type and device."""
    if (grid is None) == (example is None):
        raise ValueError(
            "`strategy` 'spectral' and 'auto' need either `grid` or `example`: a spectrum is for one grid."
        )
    seen: dict[str, list[Tensor]] = {}
    if example is not None:
        probe = copy.deepcopy(module).eval()
        for name, conv in _convolutions(probe).items():
            shapes = seen.setdefault(name, [])
            conv.register_forward_pre_hook(lambda _, args, shapes=shapes: shapes.append(torch.empty_like(args[0])))
        with torch.no_grad():
            probe(*(example if isinstance(example, tuple) else (example,)))
        return seen
    convolutions = _convolutions(module)
    for name, layer in module.named_modules():
        changes = isinstance(layer, (Downsample, Upsample)) and layer.factor > 1
        changes |= isinstance(layer, CliffordSteerableConvTranspose) and layer.stride > 1
        if isinstance(layer, CliffordSteerableConv) and len(convolutions) > 1:
            changes = layer.stride > 1 or layer.padding.rule[0] is None
        if changes:
            raise ValueError(
                f"`grid` (={grid!r}) does not say which grids the module works on, since"
                f" {name or f'the {type(layer).__name__}'} changes the grid: give `example` instead, or take"
                " `strategy` 'direct'."
            )
    for name, conv in convolutions.items():
        number = next(conv.parameters(), torch.empty(1)).new_empty(1)
        cells = _checked_grid(grid, conv.algebra)
        seen[name] = [number.expand(1, conv.in_channels, conv.algebra.n_blades, *cells)]
    return seen


def _checked_grid(grid: Any, algebra: CliffordAlgebra) -> tuple[int, ...]:
    """The grid as whole numbers of cells, one for each axis."""
    if not isinstance(grid, Sequence) or len(grid) != algebra.dim:
        raise ValueError(
            f"`grid` (={grid!r}) must hold a number of cells for each axis of {algebra}, as in {(64,) * algebra.dim}."
        )
    return tuple(whole("grid", cells) for cells in grid)


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def _refuse_what_would_be_lost(module: nn.Module) -> None:
    """Raise for convolutions and linear maps that do more than their class says."""
    for name, layer in module.named_modules():
        if not isinstance(layer, (CliffordSteerableConv, MVLinear)):
            continue
        what = ""
        if isinstance(layer, CliffordSteerableConv) and type(layer) is not CliffordSteerableConv:
            what = f"is a {type(layer).__name__}, and what that adds to CliffordSteerableConv would be lost"
        elif "forward" in vars(layer):
            what = "has a `forward` of its own, which would be lost"
        elif any(getattr(layer, hooks) for hooks in _HOOKS):
            what = "has hooks, which would be lost: remove them first"
        if what:
            raise ValueError(f"`module` cannot be frozen: {name or 'it'} {what}.")


def _grid_of_spectrum(
    name: str, conv: CliffordSteerableConv, strategy: str, inputs: Sequence[Tensor]
) -> tuple[int, ...] | None:
    """The grid to freeze a convolution's spectrum for, or None where it is direct."""
    grids = {tuple(x.shape[3:]) for x in inputs}
    if not grids or not conv._has_spectrum or conv.kernel_size == 1:
        return None
    if strategy == "auto":
        spectral = len(grids) == 1 and all(conv.strategy_for(x) == "spectral" for x in inputs)
        return grids.pop() if spectral else None
    if len(grids) > 1:
        raise ValueError(
            f"`module` uses {name or 'the convolution'} on several grids, {sorted(grids)}, but a spectrum is for one:"
            " freeze it with `strategy` 'auto' or 'direct'."
        )
    return grids.pop()
