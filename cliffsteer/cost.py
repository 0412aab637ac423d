"""What a network costs: weights, floating-point operations of a forward pass, and samples a second."""

from __future__ import annotations

import copy
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from cliffsteer.nn import ChannelProduct, CliffordSteerableConv
from cliffsteer.nn.strategy import frequency_orbits

if TYPE_CHECKING:
    from cliffsteer.solvers.base import Solver
    from cliffsteer.stepper import Parameters
    from cliffsteer.surrogate import Surrogate

_REPEATS, _SECONDS = 20, 1.0


def count_weights(module: nn.Module) -> int:
    """How many real numbers a network holds, learned or frozen; a complex one counts twice."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters())


def flops(model: nn.Module, shape: Sequence[int], convolutions: str = "cheapest") -> int:
    """Floating-point operations of a forward pass: convolutions, matrix products and Fourier transforms.

    A multiplication and an addition are two operations, a complex product of them eight; a Fourier transform of N real
    numbers counts 5/2 N log₂ N. What works on each number alone (activations, norms, channel-wise products) is not
    counted. The network runs on tensors without data; only its kernels are made. A backward pass takes about twice as
    many.

    A steerable convolution gives one result in two ways, and which is taken depends on its ``strategy``, the device and
    the batch. The count does not: "cheapest" takes the way with fewer operations, as the strategy "auto" strives to;
    "direct" counts sums over the kernel's points, as for the free convolutions of other networks.

    Args:
        model: the network; it is left as it is.
        shape: of its input, (batch, channel, blade, *grid).
        convolutions: "cheapest" or "direct".

    Raises:
        ValueError: another word for ``convolutions``.
        RuntimeError: a shape that the network does not take.

    Example:
        >>> from cliffsteer import CliffordAlgebra
        >>> from cliffsteer.nn import MVLinear
        >>> flops(MVLinear(CliffordAlgebra((1, 1)), 3, 2), (1, 3, 4, 8, 8))
        3072
    """
    if convolutions not in ("cheapest", "direct"):
        raise ValueError(f"`convolutions` (={convolutions!r}) must be 'cheapest' or 'direct'.")
    twin, counts = copy.deepcopy(model).train(), []  # in training no kernel is remembered
    for module in twin.modules():
        if isinstance(module, CliffordSteerableConv):
            module.forward = functools.partial(_convolve, module, counts, convolutions)
        elif isinstance(module, ChannelProduct):
            module.forward = _multiply
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), fake, _counter() as counter:
        twin(torch.empty(tuple(shape), dtype=next(model.parameters()).dtype))
    with torch.no_grad(), _counter() as kernels:
        for conv, _, spectral in counts:
            if getattr(conv.kernel, "conditional", False):
                conv.kernel(torch.zeros(shape[0], conv.in_channels, conv.algebra.n_blades, 1))
            else:
                conv.kernel.radial() if spectral else conv.kernel()
    return counter.get_total_flops() + kernels.get_total_flops() + sum(count for _, count, _ in counts)


def cost(surrogate: Surrogate, batch_size: int = 16) -> dict[str, Any]:
    """Weights, operations for a sample, and throughput of a surrogate, as it is, where it is.

    Args:
        surrogate: the network; its own grid and precision are those that count.
        batch_size: samples of the timed steps.

    Returns:
        JSON-ready: "weights"; "flops" of one step of one sample, as ``flops`` counts them; "samples_per_second",
        by the median time of some steps of a batch; "seconds_per_frame", the same time shared among samples and the
        frames that each step predicts; and with them "batch_size", "precision", "threads" and "device".
    """
    device, spec = surrogate.occupied.device, surrogate.spec
    channels = surrogate.history * spec.n_multivectors + spec.n_parameter_multivectors
    shape = (1, channels, spec.algebra.n_blades, *surrogate.grid.shape)
    batch = _zeros(surrogate, batch_size)
    with torch.no_grad():
        seconds = _seconds(lambda: surrogate(*batch), device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "weights": count_weights(surrogate),
        "flops": flops(copy.deepcopy(surrogate.network).cpu(), shape),
        "samples_per_second": batch_size / seconds,
        "seconds_per_frame": seconds / (batch_size * surrogate.future),
        "batch_size": batch_size,
        "precision": str(surrogate.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": name,
    }


def solver_seconds(solver: Solver, frames: Tensor, parameters: Parameters | None = None, every: int = 1) -> float:
    """Seconds that a solver takes for a frame of one trajectory, from state to state, as it runs by itself.

    Args:
        solver: the solver.
        frames: what it starts from, shape (batch, time, blade, *grid), on the device that counts.
        parameters: parameter fields by name.
        every: its steps between two frames.

    Raises:
        ValueError: frames that it cannot start from.
    """
    state = solver.restore(frames, parameters)

    def advance() -> None:
        after = state
        for _ in range(every):
            after = solver.advance(after)

    with torch.no_grad():
        return _seconds(advance, frames.device) / len(frames)


# ----------------------------------------------------------------------------------------------------- private


def _convolve(conv: CliffordSteerableConv, counts: list[tuple[Any, int, bool]], convolutions: str, x: Tensor) -> Tensor:
    """An output without data; the convolution, its operations, and whether they are spectral, go to ``counts``."""
    algebra, lost = conv.algebra, 0 if conv.padding.rule[0] else conv.padding.reach  # without padding
    points = [-(-(n - lost) // conv.stride) for n in x.shape[3:]]
    pairs = conv.in_channels * conv.out_channels * algebra.n_blades**2
    direct = 2 * len(x) * pairs * conv.kernel_size**algebra.dim * math.prod(points)
    spectral = _spectral(conv, x) if conv._has_spectrum and convolutions == "cheapest" else direct
    counts.append((conv, min(direct, spectral), spectral < direct))
    return x.new_empty(len(x), conv.out_channels, algebra.n_blades, *points)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Channel-wise products without data: they are carried out as matrix products, which would be counted."""
    return torch.empty_like(left)


def _spectral(conv: CliffordSteerableConv, x: Tensor) -> int:
    """Operations of a spectral convolution: transforms, the kernel's spectrum, products (see `strategy.faster`)."""
    algebra, n = conv.algebra, conv.algebra.dim
    lengths = conv._circular(tuple(x.shape[3:])).lengths
    circular, fields = math.prod(lengths), len(x) * (conv.in_channels + conv.out_channels) * algebra.n_blades
    tables = (1 + n + n * (n + 1) // 2) / 2
    parts = 1 if conv.kernel.group == "O" else 2
    spread = tables * frequency_orbits(algebra, lengths) * conv.kernel.basis.n_orbits
    products = conv.in_channels * conv.out_channels * parts * algebra.n_blades**2 * (len(x) * circular + spread)
    return int(2.5 * fields * circular * math.log2(circular) + 2 * products)


def _counter() -> FlopCounterMode:
    """A counter that knows Fourier transforms and complex products."""
    aten = torch.ops.aten
    products = {name: _complex_aware(flop_registry[name]) for name in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm)}
    transforms = {aten._fft_r2c: 2.5, aten._fft_c2r: 2.5, aten._fft_c2c: 5.0}
    rest = {name: _transform(factor) for name, factor in transforms.items()}
    return FlopCounterMode(display=False, custom_mapping=products | rest)


def _complex_aware(count: Callable[..., int]) -> Callable[..., int]:
    """A count of real products, times four where they are complex."""

    def raw(*args: Any, out_val: Tensor, **options: Any) -> int:
        return count(*args, out_val=out_val, **options) * (4 if out_val.is_complex() else 1)

    raw._get_raw = True
    return raw


def _transform(factor: float) -> Callable[..., int]:
    """The count of a Fourier transform along some axes, ``factor`` · N log₂ N."""

    def raw(x: Tensor, axes: Sequence[int], *args: Any, out_val: Tensor, **options: Any) -> int:
        real = x if x.numel() >= out_val.numel() else out_val  # the other may be half a spectrum
        length = math.prod(real.shape[axis] for axis in axes)
        return int(factor * real.numel() * math.log2(length)) if length > 1 else 0

    raw._get_raw = True
    return raw


def _zeros(surrogate: Surrogate, batch: int) -> tuple[Tensor, Tensor]:
    spec, options = surrogate.spec, {"dtype": surrogate.dtype, "device": surrogate.occupied.device}
    frames = torch.zeros(batch, surrogate.history, spec.n_blades, *surrogate.grid.shape, **options)
    return frames, torch.zeros(batch, spec.n_parameter_blades, **options)


def _seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Median time of a step, after one to warm up; as many as fit into a second, three at least."""
    times: list[float] = []
    step()
    while len(times) < 3 or (len(times) < _REPEATS and sum(times) < _SECONDS):
        _wait(device)
        began = time.perf_counter()
        step()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
