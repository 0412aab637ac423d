"""How a convolution is carried out: directly, or in the spectrum; and which of them is likely to be faster."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import pad_axis

_Function = TypeVar("_Function", bound=Callable)


def _cached(function: _Function) -> _Function:
    """Cache a function, except for torch.compile, which looks through caches anyway and warns of them."""
    cached = functools.lru_cache(maxsize=1024)(function)

    @functools.wraps(function)
    def call(*args):
        return function(*args) if torch.compiler.is_compiling() else cached(*args)

    return call


STRATEGIES = ("auto", "direct", "spectral")


@dataclass(frozen=True)
class Speed:
    """What a device does per second on one core (or as a whole): the constants of the cost model.

    Attributes:
        convolution: flop/s of a direct convolution.
        products: flop/s of batched matrix products.
        spectrum: numbers per second of the kernel's spectrum written and read.
        layout: numbers per second transformed, transposed and gathered, on the way in or out of the spectrum.
        call: seconds per operation, whatever its size.
    """

    convolution: float
    products: float
    spectrum: float
    layout: float
    call: float


SPEEDS = {"cpu": Speed(1.0e11, 7.5e10, 1e9, 2.2e8, 6e-6), "elsewhere": Speed(3e13, 1.5e13, 5e11, 1.5e10, 8e-6)}
"""Fitted on one core of an AVX-512 server (both strategies gain alike from more cores); for accelerators estimated from
their data sheets, not measured."""


_MARGIN = 1.2


@_cached
def faster(
    algebra: CliffordAlgebra,
    group: str,
    kernel_size: int,
    kernel_orbits: int,
    batch: int,
    channels: tuple[int, int],
    points: int,
    grid: tuple[int, ...],
    device: str = "cpu",
) -> str:
    """The strategy that a count of flops and numbers moved says is faster in a forward pass.

        direct    2 B P' c_in c_out 4ⁿ kⁿ / convolution
        spectral  B (c_in + c_out) 2ⁿ P / layout + 2 c_in c_out 4ⁿ (B P + t r f) / products
                  + 4ⁿ c_in c_out f / spectrum + calls

    with P' points computed directly, P points of the circular grid, f orbits of frequencies, r orbits of the kernel,
    and t tables for a pair of blades. The backward passes scale alike. Where the two are
    within a sixth of each other, direct it is.

    Args:
        algebra: the algebra.
        group: of the kernel.
        kernel_size: points along each axis.
        kernel_orbits: orbits of these points.
        batch: of the input.
        channels: multivectors in and out.
        points: of the output, computed directly (after the stride).
        grid: the circular grid, with its padding.
        device: type of the device.
    """
    if kernel_size == 1:
        return "direct"
    speed = SPEEDS.get(device, SPEEDS["elsewhere"])
    blades, pairs, circular = algebra.n_blades, channels[0] * channels[1], math.prod(grid)
    narrow = min(1.0, min(channels) * blades / 32)  # direct convolutions of few channels do not reach their speed
    by_slices = 1 if algebra.dim <= 3 else 0.5
    flops = 2 * batch * points * pairs * blades**2 * kernel_size**algebra.dim
    direct = flops / (speed.convolution * narrow * by_slices)
    orbits, n = frequency_orbits(algebra, grid), algebra.dim
    parts = 1 if group == "O" else 2
    tables = (1 + n + n * (n + 1) // 2) / 2  # the monomials 1, x_a and x_a x_b, half of them for a pair of blades
    products = pairs * parts * blades**2 * (batch * circular + tables * orbits * kernel_orbits)
    numbers = parts * orbits * pairs * blades**2
    calls = 40 + (3 * algebra.dim + numbers / 2**22) * 16
    layout = batch * sum(channels) * blades * circular
    spectral = layout / speed.layout + 2 * products / speed.products + numbers / speed.spectrum + calls * speed.call
    return "spectral" if spectral < direct / _MARGIN else "direct"


def frequency_orbits(algebra: CliffordAlgebra, grid: Sequence[int]) -> int:
    """Number of orbits of frequencies under the signed permutations of axes of equal sign and length."""
    orbits = 1  # Π C(N/2 + m, m) over the kinds of axes, m of each, factor by factor: sizes may be symbols
    for axis, (sign, length) in enumerate(zip(algebra.signature, grid, strict=True)):
        m = 1 + sum(algebra.signature[i] == sign and grid[i] == length for i in range(axis))
        orbits = orbits * (length // 2 + m) // m
    return orbits


def transform_length(length: int) -> int:
    """The next length without prime factors above 7, which Fourier transforms like."""
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def exporting() -> bool:
    """Whether `torch.export` (or an exporter built on it) is tracing, where sizes may be symbols."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()  # PyTorch 2.6 has only the latter


@dataclass(frozen=True)
class CircularGrid:
    """How a bounded grid sits in a circular one: ghost cells behind the walls, zeros where nothing is read.

    Attributes:
        ghosts: cells (low, high) beyond each axis' ends.
        lengths: of the circular grid.
        starts: first point of the output.
        counts: points of the output.
    """

    ghosts: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]

    def embed(self, x: Tensor, modes: Sequence[tuple[str, str]], signs: Tensor | None) -> Tensor:
        """Extend a field of multivectors to the circular grid, with the modes (and reflections) of a `Padding`."""
        first, spare = x.ndim - len(self.lengths), []
        for axis, (low, high) in enumerate(self.ghosts):
            if low or high:
                turn = None if signs is None else signs[axis].to(x.dtype).view(-1, *[1] * (x.ndim - 3))
                x = pad_axis(x, first + axis, low, high, modes[axis], turn)
            spare = [0, self.lengths[axis] - x.shape[first + axis], *spare]
        return F.pad(x, spare) if any(spare) else x

    def crop(self, y: Tensor, stride: int) -> Tensor:
        """The points of the output."""
        window = [slice(a, a + n, stride) for a, n in zip(self.starts, self.counts, strict=True)]
        return y[(..., *window)]


@_cached
def circular_grid(
    signature: tuple[int, ...], grid: tuple[int, ...], reach: int, modes: tuple[tuple[str, str], ...] | None
) -> CircularGrid:
    """The circular grid for a kernel that spans ``reach`` + 1 cells; ``modes`` None: no padding, only valid points.

    Axes of equal sign and length become equally long, so that they stay interchangeable.
    """
    half = reach // 2
    ghosts, starts, counts, needed = [], [], [], []
    for length, pair in zip(grid, modes or (("valid", "valid"),) * len(grid), strict=True):
        kind = pair[0] if pair[0] == pair[1] else "mixed"
        ghosts.append((0, 0) if kind in ("periodic", "valid", "zeros") else (half, half))
        starts.append(0 if kind in ("periodic", "zeros") else half)
        counts.append(length - 2 * half if kind == "valid" else length)
        needed.append({"periodic": 0, "valid": length, "zeros": length + half}.get(kind, length + 2 * half))
    kinds = list(zip(signature, grid, strict=True))
    lengths = [
        max(n for n, k in zip(needed, kinds, strict=True) if k == kind) if need else length
        for need, kind, length in zip(needed, kinds, grid, strict=True)
    ]
    lengths = [transform_length(n) if need else n for n, need in zip(lengths, needed, strict=True)]
    return CircularGrid(tuple(ghosts), tuple(lengths), tuple(starts), tuple(counts))


class Remembered:
    """One value and what it was made from; it is made anew when that has changed.

    What is made of tensors that require a gradient is not kept: fused optimizers change them without counting it.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple, list[Tensor], Tensor] | None = None  # at once, so that threads never see half of it

    def get(self, module: torch.nn.Module, kind: str, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        """The value for ``kind``, made if the parameters and buffers of ``module`` are not what they were."""
        sources = [*module.parameters(), *module.buffers()]
        key, kept = self._key(sources, kind, device), self._kept
        if key is not None and kept is not None and kept[0] == key:
            return kept[2]
        value = make()
        self._kept = None if key is None else (key, sources, value)  # the sources live on: no other takes their place
        return value

    @staticmethod
    def _key(sources: Sequence[Tensor], kind: str, device: torch.device) -> tuple | None:
        """The state of the sources, None where changes would go unseen."""
        if any(t.requires_grad or t.is_inference() for t in sources):
            return None
        autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        try:
            return kind, autocast, tuple((id(t), t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
        except RuntimeError:  # tensors under a transform of torch.func have no memory of their own
            return None
