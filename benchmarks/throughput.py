"""Samples per second of a training step, and its memory, of every network: against the plain ResNet and the FNO.

    python benchmarks/throughput.py [--match params] [--threads 2] [--repeats 3] [--only 2D] [--models csresnet fno]
                                    [--out benchmarks/results/throughput.csv] [--device cuda]

All in one run on one machine, each network in a process of its own, with the options of `conf/model` at the width that
`--match` picks: that of as many parameters, or flops, as the CS-ResNet of `conf/model` (cut down in `CASES` to the
case's size); "none" leaves the widths as they are there. `csresnet+product` has products for nonlinearity. The FNO is
neuraloperator's (pip install 'cliffsteer[neuralop]').

A step is forward, mean squared error, backward and Adam. Times are minima over the repeats; memory is the peak of a
step above what was held before.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from measuring import RefusedError, arguments, give_back, peak, reset_peak, resident, run_cases

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.cost import count_weights, flops
from cliffsteer.models import available, create, fit_to_grid
from cliffsteer.models.matching import match_width

PEERS = ("resnet", "fno")
MODELS = (*PEERS, *(name for name in available() if name not in PEERS), "csresnet+product")


@dataclass(frozen=True)
class Case:
    """One task: four frames in, one out, periodic."""

    name: str
    signature: tuple[int, ...]
    size: int
    batch: int
    channels: int
    blocks: tuple[int, ...] = (2, 2)
    modes: int = 8


CASES = (
    Case("2D", (1, 1), 64, 8, 24),
    Case("3D", (1, 1, 1), 32, 1, 10, modes=5),
    Case("R12", (1, -1, -1), 32, 1, 8, modes=5),
    Case("tiny", (1, 1), 32, 2, 4, (1,), 3),
)
"""The last is to try the benchmark out, and only run when asked for."""


@dataclass
class Result:
    """What was measured; times in milliseconds, memory in megabytes, flops of a forward pass of one sample."""

    case: str
    model: str
    width: int
    parameters: int
    gflops: float
    step_ms: float
    samples_per_s: float
    peak_mb: float
    speed_vs_resnet: float = float("nan")
    speed_vs_fno: float = float("nan")
    memory_vs_resnet: float = float("nan")
    memory_vs_fno: float = float("nan")

    def compare(self, case: Mapping[str, Result]) -> None:
        """Ratios to the peers."""
        for name in PEERS:
            if peer := case.get(name):
                setattr(self, f"speed_vs_{name}", self.samples_per_s / peer.samples_per_s)
                if peer.peak_mb:  # too little to be seen in a small case
                    setattr(self, f"memory_vs_{name}", self.peak_mb / peer.peak_mb)

    def __str__(self) -> str:
        return (
            f"{self.case:5s} {self.model:17s} width {self.width:4d} {self.parameters:9d} parameters"
            f" {self.gflops:8.3f} Gflop {self.samples_per_s:9.2f} samples/s ({self.speed_vs_resnet:6.2f}x"
            f" ResNet, {self.speed_vs_fno:6.2f}x FNO)  peak {self.peak_mb:6.0f} MB"
        )


def configured(case: Case, model: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a network in a case, before matching."""
    name, _, product = model.partition("+")
    text = (Path(__file__).parents[1] / "conf" / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    options = yaml.safe_load(text)["options"]
    changes = {"padding": "periodic", "modes": case.modes}
    if name in ("csresnet", "resnet", "clifford_resnet", "steerable_resnet"):
        changes["blocks"] = list(case.blocks)
    if product:
        changes["nonlinearity"] = "product"
    return name, options | {key: value for key, value in changes.items() if key in options}


def measure(case: Case, model: str, args: argparse.Namespace) -> Result:
    """Time and peak memory of a training step."""
    algebra, device = CliffordAlgebra(case.signature), torch.device(args.device)
    grid = (case.size,) * algebra.dim
    task = {"algebra": algebra, "in_channels": 4, "out_channels": 1, "grid": grid}
    name, options = configured(case, model)
    options = fit_to_grid(options, Grid(grid))
    if args.match != "none":
        _, like = configured(case, "csresnet")
        target = create("csresnet", algebra, 4, 1, **like | {"hidden_channels": case.channels})
        try:
            options["hidden_channels"] = match_width(name, options, target, args.match, **task)
        except ValueError as error:
            raise RefusedError(str(error)) from error
    torch.manual_seed(0)
    network = create(name, algebra, 4, 1, **options).to(device)
    x = torch.randn(case.batch, 4, algebra.n_blades, *grid, device=device)
    y = torch.randn(case.batch, 1, algebra.n_blades, *grid, device=device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        start = now()
        F.mse_loss(network(x), y).backward()
        optimizer.step()
        return now() - start

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    step()  # tables, plans and the optimiser's state
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    give_back()
    held = torch.cuda.memory_allocated() if device.type == "cuda" else resident()
    reset_peak()
    times, started = [step()], time.perf_counter()
    used = (torch.cuda.max_memory_allocated() if device.type == "cuda" else peak()) - held
    while len(times) < args.repeats and time.perf_counter() - started < 240:
        times.append(step())
    best = min(times)
    cost = count_weights(network), flops(network.cpu(), (1, *x.shape[1:])) / 1e9
    return Result(case.name, model, options["hidden_channels"], *cost, best * 1e3, case.batch / best, used / 1e6)


def main() -> None:
    """Run all cases, print the table and write it."""
    parser = arguments(__doc__, "throughput.csv")
    parser.add_argument("--match", choices=("params", "flops", "none"), default="params")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(only=["2D", "3D", "R12"])
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device (={args.device}): there is no CUDA device; take 'cpu'.")
    models = sorted(args.models, key=MODELS.index)
    run_cases(__file__, args, CASES, models, measure, Result, match=args.match)


if __name__ == "__main__":
    main()
