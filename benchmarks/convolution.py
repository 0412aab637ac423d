"""The Clifford-steerable convolution against the plain one of equal width: time and memory, forward and backward.

    python benchmarks/convolution.py [--threads 2] [--repeats 5] [--out convolution.csv] [--only 2D]

Peers, in the same run and on the same machine: torch.nn.functional.conv2d / conv3d of the installed torch with a free
kernel of c · 2ⁿ real channels (the padding included), and this package's own direct strategy. Times are minima over the
repeats, of which there are more where they are short (two seconds' worth); memory is the peak of the process above what
it held before, each entry in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from measuring import arguments, give_back, peak, reset_peak, resident, run_cases
from torch import Tensor

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CliffordSteerableConv

RUNNERS = ("plain", "direct", "spectral", "auto")


@dataclass(frozen=True)
class Case:
    """One shape of convolution."""

    name: str
    signature: tuple[int, ...]
    size: int
    batch: int
    channels: int
    kernel_size: int = 7
    padding: str = "periodic"


CASES = (
    Case("2D", (1, 1), 64, 8, 48),
    Case("2D 16 channels", (1, 1), 64, 8, 16),
    Case("2D zeros", (1, 1), 64, 8, 48, padding="zeros"),
    Case("2D 3x3", (1, 1), 64, 8, 48, kernel_size=3),
    Case("2D 3x3 narrow", (1, 1), 64, 8, 8, kernel_size=3),
    Case("2D tiny", (1, 1), 8, 8, 8, kernel_size=3),
    Case("2D large kernel", (1, 1), 64, 8, 16, kernel_size=31),
    Case("3D", (1, 1, 1), 32, 1, 12),
    Case("3D batch 2", (1, 1, 1), 32, 2, 12),
    Case("3D zeros", (1, 1, 1), 32, 1, 12, padding="zeros"),
    Case("3D 3x3x3", (1, 1, 1), 32, 1, 12, kernel_size=3),
    Case("R12", (1, -1, -1), 32, 1, 12),
)


@dataclass
class Result:
    """What was measured; times in milliseconds, memory in megabytes."""

    case: str
    runner: str
    chosen: str
    forward_ms: float
    total_ms: float
    evaluation_ms: float
    peak_mb: float
    speedup: float = float("nan")
    memory_ratio: float = float("nan")

    def compare(self, case: Mapping[str, Result]) -> None:
        """Ratios to the first runner, the plain convolution."""
        plain = next(iter(case.values()))
        self.speedup, self.memory_ratio = plain.total_ms / self.total_ms, self.peak_mb / plain.peak_mb

    def __str__(self) -> str:
        return (
            f"{self.case:18s} {self.runner:9s} {self.chosen:9s} forward {self.forward_ms:8.1f} ms"
            f"  forward+backward {self.total_ms:8.1f} ms ({self.speedup:6.2f}x)"
            f"  evaluation {self.evaluation_ms:8.1f} ms"
            f"  peak {self.peak_mb:6.0f} MB ({self.memory_ratio:.2f}x)"
        )


def plain_step(case: Case):
    """Forward of the plain convolution, its input and its kernel."""
    algebra = CliffordAlgebra(case.signature)
    dim, width = algebra.dim, case.channels * algebra.n_blades
    conv, mode = (F.conv1d, F.conv2d, F.conv3d)[dim - 1], {"periodic": "circular", "zeros": "constant"}[case.padding]
    pad = [case.kernel_size // 2] * 2 * dim
    x = torch.randn(case.batch, width, *[case.size] * dim, requires_grad=True)
    kernel = torch.randn(width, width, *[case.kernel_size] * dim) / (width * case.kernel_size**dim) ** 0.5
    kernel.requires_grad_()
    return lambda x: conv(F.pad(x, pad, mode=mode), kernel), x, [kernel], "conv"


def steerable_step(case: Case, strategy: str):
    """Forward of the steerable convolution with a complete kernel, its input and its parameters."""
    algebra = CliffordAlgebra(case.signature)
    options = {"kernel": "complete", "padding": case.padding, "strategy": strategy, "bias": False}
    layer = CliffordSteerableConv(algebra, case.channels, case.channels, case.kernel_size, **options)
    shape = (case.batch, case.channels, algebra.n_blades, *[case.size] * algebra.dim)
    x = torch.randn(shape, requires_grad=True)
    return layer, x, list(layer.parameters()), layer.strategy_for(x)


def measure(case: Case, runner: str, args: argparse.Namespace) -> Result:
    """Time forward, forward and backward, and a forward in evaluation, and the peak memory of a step."""
    forward, x, parameters, chosen = plain_step(case) if runner == "plain" else steerable_step(case, runner)

    def step() -> tuple[float, float]:
        x.grad = None
        for p in parameters:
            p.grad = None
        start = time.perf_counter()
        y: Tensor = forward(x)
        middle = time.perf_counter()
        y.backward(torch.ones_like(y))
        return middle - start, time.perf_counter() - start

    forward(x.detach()[:1])  # tables and buffers of the libraries
    gc.collect()
    give_back()
    held = resident()
    reset_peak()
    times = [step()]
    used = peak() - held
    started = time.perf_counter()

    def elapsed() -> float:
        return time.perf_counter() - started

    while (len(times) < args.repeats and elapsed() < 60) or elapsed() < 2:
        times.append(step())
    if isinstance(forward, torch.nn.Module):
        forward.eval()
    with torch.no_grad():
        evaluation = []
        for _ in range(len(times)):
            start = time.perf_counter()
            forward(x)
            evaluation.append(time.perf_counter() - start)
    best = [min(t) * 1e3 for t in zip(*times, strict=True)]
    return Result(case.name, runner, chosen, *best, min(evaluation) * 1e3, used / 1e6)


if __name__ == "__main__":
    run_cases(__file__, arguments(__doc__, "convolution.csv", 5).parse_args(), CASES, RUNNERS, measure, Result)
