"""A training step of the CS-ResNet at paper size, against the same network with free convolutions: time and memory.

    python benchmarks/network.py [--threads 2] [--repeats 3] [--out benchmarks/results/network.csv] [--only 2D]
                                 [--runners free complete] [--compile] [--precision bf16]

Runners, in one run on one machine, each in a process of its own:

    free        the CS-ResNet with a convolution of free kernels of c · 2ⁿ real channels in place of each steerable one
    complete    complete kernels, strategy "auto"
    direct      complete kernels, strategy "direct"
    implicit    the published kernel, strategy "auto"

A step is forward, mean squared error, backward and Adam. `kernels_ms` is what making all kernels' radial values takes,
forward and backward. Times are minima over the repeats; memory is the peak of the first two steps above what the
network itself takes, the optimiser's state included.
`--device cuda` measures there, with `--precision bf16` (autocast; norms and spectra stay in float32).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from measuring import arguments, give_back, peak, reset_peak, resident, run_cases
from torch import Tensor, nn

from cliffsteer import CliffordAlgebra
from cliffsteer.cost import count_weights
from cliffsteer.models import CSResNet
from cliffsteer.nn import CliffordSteerableConv

RUNNERS = ("free", "complete", "direct", "implicit")


@dataclass(frozen=True)
class Case:
    """One network: four frames in, one out, blocks (2, 2, 2, 2), kernels 7 wide, periodic."""

    name: str
    signature: tuple[int, ...]
    size: int
    batch: int
    channels: int


CASES = (
    Case("2D", (1, 1), 64, 8, 48),
    Case("2D 16 channels", (1, 1), 64, 8, 16),
    Case("3D", (1, 1, 1), 32, 1, 12),
    Case("R12", (1, -1, -1), 32, 1, 12),
)


class FreeConv(nn.Module):
    """A convolution with a free kernel between all blades of all channels, in place of a steerable one."""

    def __init__(self, conv: CliffordSteerableConv):
        super().__init__()
        self.dim, self.blades, width = conv.algebra.dim, conv.algebra.n_blades, conv.in_channels * conv.algebra.n_blades
        self.reach = conv.kernel_size // 2
        size = [conv.kernel_size] * self.dim
        self.kernel = nn.Parameter(torch.randn(width, width, *size) / (width * conv.kernel_size**self.dim) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, periodic."""
        wide = F.pad(x.flatten(1, 2), [self.reach] * 2 * self.dim, mode="circular")
        y = (F.conv1d, F.conv2d, F.conv3d)[self.dim - 1](wide, self.kernel, self.bias)
        return y.unflatten(1, (-1, self.blades))


@dataclass
class Result:
    """What was measured; times in milliseconds, memory in megabytes."""

    case: str
    runner: str
    parameters: int
    forward_ms: float
    step_ms: float
    evaluation_ms: float
    kernels_ms: float
    peak_mb: float
    speedup: float = float("nan")
    memory_ratio: float = float("nan")

    def compare(self, case: Mapping[str, Result]) -> None:
        """Ratios to the first runner."""
        first = next(iter(case.values()))
        self.speedup, self.memory_ratio = first.step_ms / self.step_ms, self.peak_mb / first.peak_mb

    def __str__(self) -> str:
        return (
            f"{self.case:15s} {self.runner:9s} {self.parameters:9d} parameters"
            f"  forward {self.forward_ms:8.0f} ms  step {self.step_ms:8.0f} ms ({self.speedup:6.2f}x)"
            f"  evaluation {self.evaluation_ms:8.0f} ms  kernels {self.kernels_ms:6.1f} ms"
            f" ({self.kernels_ms / self.step_ms:.1%})  peak {self.peak_mb:6.0f} MB"
        )


def build(case: Case, runner: str) -> nn.Module:
    """The network of a runner."""
    algebra = CliffordAlgebra(case.signature)
    kernel = "implicit" if runner == "implicit" else "complete"
    strategy = "direct" if runner in ("free", "direct") else "auto"
    network = CSResNet(algebra, 4, 1, case.channels, padding="periodic", kernel=kernel, strategy=strategy)
    if runner == "free":
        for block in network.blocks:
            block.conv1, block.conv2 = FreeConv(block.conv1), FreeConv(block.conv2)
    return network


def measure(case: Case, runner: str, args: argparse.Namespace) -> Result:
    """Time and peak memory of a training step, of a forward pass in evaluation, and of making the kernels."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    network = build(case, runner).to(device)
    shape = (case.batch, 4, 2 ** len(case.signature), *[case.size] * len(case.signature))
    x, y = torch.randn(shape, device=device), torch.randn(shape[0], 1, *shape[2:], device=device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    run = torch.compile(network) if args.compile else network
    cast = torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step() -> tuple[float, float]:
        optimizer.zero_grad(set_to_none=True)
        start = now()
        with cast:
            prediction = run(x)
        middle = now()
        F.mse_loss(prediction.float(), y).backward()
        optimizer.step()
        return middle - start, now() - start

    gc.collect()
    give_back()
    held = torch.cuda.memory_allocated() if device.type == "cuda" else resident()
    reset_peak()
    step()  # tables, plans and the optimiser's state
    times, started = [step()], time.perf_counter()
    used = (torch.cuda.max_memory_allocated() if device.type == "cuda" else peak()) - held
    while len(times) < args.repeats and time.perf_counter() - started < 240:
        times.append(step())
    kernels = [m.kernel for m in network.modules() if isinstance(m, CliffordSteerableConv)]
    made = []
    for _ in range(len(times) if kernels else 0):
        start = now()
        sum(kernel.radial().sum() for kernel in kernels).backward()
        made.append(now() - start)
    network.eval()
    evaluation = []
    with torch.no_grad(), cast:
        for _ in range(max(len(times), 2)):
            start = now()
            run(x)
            evaluation.append(now() - start)
    best = [min(t) * 1e3 for t in zip(*times, strict=True)]
    rest = min(evaluation) * 1e3, min(made, default=0.0) * 1e3, used / 1e6
    return Result(case.name, runner, count_weights(network), *best, *rest)


def main() -> None:
    """Run all cases, print the table and write it."""
    parser = arguments(__doc__, "network.csv")
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=RUNNERS, help="the first is the ratios' one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    args = parser.parse_args()
    setting = {"precision": args.precision, "compiled": str(args.compile)}
    run_cases(__file__, args, CASES, args.runners, measure, Result, **setting)


if __name__ == "__main__":
    main()
