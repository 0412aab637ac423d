"""What a network costs: weights, floating-point operations, and samples a second."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from torch import nn

from cliffsteer.models.cost import flops
from cliffsteer.surrogate import Surrogate

_REPEATS, _SECONDS = 20, 1.0


def cost(surrogate: Surrogate, batch_size: int = 16) -> dict[str, Any]:
    """Weights, operations for a sample, and throughput of a surrogate, as it is, where it is.

    Args:
        surrogate: the network; its own grid and precision are those that count.
        batch_size: samples of the timed steps.

    Returns:
        JSON-ready: "weights"; "flops" of one step of one sample, as `cliffsteer.models.cost.flops` counts them;
        "samples_per_second", by the median time of some steps of a batch; and with them "batch_size", "precision",
        "threads" and "device".
    """
    device, spec = surrogate.occupied.device, surrogate.spec
    channels = surrogate.history * spec.n_multivectors + spec.n_parameter_multivectors
    shape = (1, channels, spec.algebra.n_blades, *surrogate.grid.shape)
    with torch.no_grad():
        seconds = _seconds(surrogate, _zeros(surrogate, batch_size))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "weights": count_weights(surrogate),
        "flops": flops(copy.deepcopy(surrogate.network).cpu(), shape),
        "samples_per_second": batch_size / seconds,
        "batch_size": batch_size,
        "precision": str(surrogate.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": name,
    }


def count_weights(module: nn.Module) -> int:
    """How many real numbers a network holds, learned or frozen; a complex one counts twice."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters())


def _zeros(surrogate: Surrogate, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    spec, options = surrogate.spec, {"dtype": surrogate.dtype, "device": surrogate.occupied.device}
    frames = torch.zeros(batch, surrogate.history, spec.n_blades, *surrogate.grid.shape, **options)
    return frames, torch.zeros(batch, spec.n_parameter_blades, **options)


def _seconds(surrogate: Surrogate, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Median time of a step, after one to warm up; as many as fit into a second, three at least."""
    times: list[float] = []
    surrogate(*batch)
    while len(times) < 3 or (len(times) < _REPEATS and sum(times) < _SECONDS):
        _wait(batch[0])
        began = time.perf_counter()
        surrogate(*batch)
        _wait(batch[0])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
