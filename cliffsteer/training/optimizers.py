"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math

import torch
from torch import nn

from cliffsteer.training.config import OptimizerConfig, ScheduleConfig


def create_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser of a module's trainable weights; weight decay spares tensors of fewer than two axes."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps)
        case "adam":
            return torch.optim.Adam(groups, lr=config.lr, betas=tuple(config.betas), eps=config.eps)
        case "sgd":
            momentum = config.betas[0]
            return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=momentum > 0)
    raise ValueError(f"`optimizer.name` (={config.name!r}) must be one of adamw, adam, sgd.")


def learning_rate_factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """Learning rate at a step over the peak learning rate.

    A linear rise over ``warmup_steps``, then constant, or half a cosine from 1 to ``final_factor`` at the last step
    (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, one period).
    """
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.name == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return config.final_factor + (1 - config.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
