"""Several processes: which strategy shares the work, and weights of which each process keeps a part.

"ddp" gives every process all weights and averages gradients. "fsdp" (`torch.distributed.fsdp.fully_shard`) gives each a
part of weights, gradients, moments and running average, and gathers the weights of a block while it computes. The
checkpoints of both are the same: whole tensors in one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from cliffsteer.training.config import TrainerConfig
from cliffsteer.training.wrapping import blocks


def create_strategy(settings: TrainerConfig) -> Strategy | str:
    """The strategy of these settings, in Lightning's terms.

    Raises:
        ValueError: several devices, but the processes were not started by a launcher, or were, but another number.
    """
    world = settings.devices * settings.nodes
    _check_launched(settings)
    if world == 1:
        return "auto"
    if not any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "SLURM_PROCID")):
        raise ValueError(
            f"`trainer.devices` (={settings.devices}) and `trainer.nodes` (={settings.nodes}) need {world} processes:"
            f" start the command with `torchrun --nproc-per-node {settings.devices}`, or with `srun`."
        )
    return Sharded(world) if shares_weights(settings) else "ddp"


def _check_launched(settings: TrainerConfig) -> None:
    """Raise a ValueError where a launcher started another number of processes than the settings have devices.

    In a SLURM allocation only `srun` tells the number of tasks of its step: the script around it is one process.
    """
    for launcher, total, machines in (
        ("torchrun", "WORLD_SIZE", "GROUP_WORLD_SIZE"),
        ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
    ):
        if total not in os.environ:
            continue
        started, nodes = int(os.environ[total]), int(os.environ.get(machines, 1))
        if started != settings.devices * settings.nodes:
            keys = f"`trainer.devices={started // nodes}`" + (f" and `trainer.nodes={nodes}`" if nodes > 1 else "")
            raise ValueError(
                f"`trainer.devices` (={settings.devices}) × `trainer.nodes` (={settings.nodes}) must be the number of"
                f" processes that {launcher} started (={started}): give {keys}, or start another number."
            )
        return


def shares_weights(settings: TrainerConfig) -> bool:
    """Whether each process keeps a part of the weights."""
    return settings.strategy == "fsdp" and settings.devices * settings.nodes > 1


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for `fully_shard`, with checkpoints like everybody's: whole tensors, PyTorch's own layout.

    Args:
        world: number of processes.
    """

    lightning_restore_optimizer = True

    def __init__(self, world: int):
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state of the module, in every process."""
        return gathered(self.lightning_module.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take each process's part of the state."""
        module = self.lightning_module
        module.load_state_dict(_scattered(checkpoint["state_dict"], module.state_dict()), strict=strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state of an optimiser, in every process."""
        state = getattr(optimizer, "_optimizer", optimizer).state_dict()
        return {**state, "state": {key: gathered(values) for key, values in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take each process's part of the state of the optimisers."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            mine = {
                key: {name: _like(value, weights[key]) for name, value in values.items()}
                for key, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": mine})

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, whole, in every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)


def shard(network: nn.Module, mesh: Any) -> None:
    """Leave each process its part of the weights of a network, block by block.

    Weights without an axis are too small to share: each process keeps them, see `average_whole_gradients`.
    """
    from torch.distributed.fsdp import fully_shard

    whole = {weight for weight in network.parameters() if weight.ndim == 0}
    for module in [*blocks(network), network]:
        fully_shard(module, mesh=mesh, ignored_params=whole)


def average_whole_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Average, over the processes, the gradients of weights that are not shared among them."""
    for weight in weights:
        if weight.grad is not None and not isinstance(weight, DTensor):
            dist.all_reduce(weight.grad)
            weight.grad.div_(dist.get_world_size())


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all tensors together; parts of one tensor in several processes count once."""
    parts: list[Tensor] = []
    for shared in (False, True):
        group = [tensor for tensor in tensors if isinstance(tensor, DTensor) == shared]
        if group:
            norm = nn.utils.get_total_norm(group)
            parts.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return torch.stack(parts).square().sum().sqrt() if len(parts) > 1 else parts[0]


def gathered(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with every tensor whole and on the CPU where it was shared; all processes must call it."""
    return {name: value.full_tensor().cpu() if isinstance(value, DTensor) else value for name, value in state.items()}


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()


def _scattered(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _like(value, like[name]) if name in like else value for name, value in state.items()}


def _like(value: Any, reference: Tensor) -> Any:
    """A whole tensor as the part of this process, where the reference is one and of the same shape."""
    if not isinstance(reference, DTensor) or not isinstance(value, Tensor) or value.shape != reference.shape:
        return value
    value = value.to(reference.device)
    return distribute_tensor(value, reference.device_mesh, reference.placements, src_data_rank=None)
