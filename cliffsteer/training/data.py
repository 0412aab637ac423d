"""Batches: shuffled for training in an order that depends on the seed and the step alone, enumerated for validation."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from cliffsteer.training.config import DataConfig


class ShuffledBatches(Sampler[list[int]]):
    """Batches without end: each pass over the data is a permutation seeded by (seed, pass).

    The batch of a step is a function of the step alone, so a training that starts again at any step reads what an
    unbroken one would have read there. A pass ends with its last whole batch; where a pass is smaller than a
    batch, the next passes fill it up.

    Args:
        size: number of windows.
        batch_size: windows of a step, over all devices.
        seed: of the order.
        start: the first step.
        rank: which of the equal parts of every batch is given.
        parts: number of parts.
        accumulate: smaller batches into which a part is divided, given one after the other.

    Raises:
        ValueError: no windows.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        parts: int = 1,
        accumulate: int = 1,
    ):
        if size < 1:
            raise ValueError(f"`size` (={size}) must be at least 1: there is no window to train on.")
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.rank, self.parts, self.accumulate = rank, parts, accumulate

    def batch(self, step: int) -> list[int]:
        """Windows of a step, those of this rank."""
        whole = self.size // self.batch_size * self.batch_size or self.size
        first = step * self.batch_size
        windows: list[int] = []
        while len(windows) < self.batch_size:
            epoch, offset = divmod(first + len(windows), whole)
            windows += self._permutation(epoch)[offset : min(whole, offset + self.batch_size - len(windows))]
        return windows[self.rank :: self.parts]

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            windows = self.batch(step)
            yield from (windows[number :: self.accumulate] for number in range(self.accumulate))
            step += 1

    def _permutation(self, epoch: int) -> list[int]:
        if getattr(self, "_cached", (None,))[0] != epoch:
            mixed = (self.seed * 0x9E3779B97F4A7C15 + epoch) % 2**63
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(mixed))
            self._cached = (epoch, order.tolist())
        return self._cached[1]


class WindowData(LightningDataModule):
    """Training windows from the trainer's current step on, and all validation windows, in Lightning's terms.

    Args:
        train: windows to train on.
        valid: windows to validate on.
        config: batch size and workers.
        seed: of the order of the training windows.
        accumulate: batches of an optimiser step.
    """

    def __init__(self, train: Dataset, valid: Dataset, config: DataConfig, seed: int, accumulate: int = 1):
        super().__init__()
        self.train, self.valid, self.config, self.seed = train, valid, config, seed
        self.accumulate = accumulate

    def train_dataloader(self) -> DataLoader:
        """Endless shuffled batches; after a restart they go on where the checkpoint was made."""
        rank, parts = self.trainer.global_rank, self.trainer.world_size
        start = self.trainer.global_step
        batches = ShuffledBatches(
            len(self.train), self.config.batch_size, self.seed, start, rank, parts, self.accumulate
        )
        return self._loader(self.train, batches)

    def val_dataloader(self) -> DataLoader:
        """All windows in order, each exactly once over all ranks."""
        rank, parts = self.trainer.global_rank, self.trainer.world_size
        mine = list(range(len(self.valid)))[rank::parts]
        size = self.config.batch_size // parts // self.accumulate
        return self._loader(self.valid, [mine[i : i + size] for i in range(0, len(mine), size)])

    def _loader(self, windows: Dataset, batches: Sampler[list[int]] | list[list[int]]) -> DataLoader:
        workers = self.config.workers
        return DataLoader(
            windows,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            # forking a process that runs threads and holds open HDF5 files can hang
            multiprocessing_context="spawn" if workers else None,
        )


@contextlib.contextmanager
def readers(workers: int) -> Iterator[None]:
    """Say what to do where the reader processes of a `WindowData` cannot be started, or die.

    Raises:
        RuntimeError: they did; a sentence with the key to change.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        died = isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")
        if not workers or not (died or getattr(error, "errno", None) in _TOO_MANY):
            raise
        text = str(error).partition("\n")[0].rstrip(". ")
        raise RuntimeError(
            f"`data.workers` (={workers}): the reader processes did not last ({text}); take fewer, each needs memory"
            " and files of its own, or 0 to read in the training process."
        ) from error


_TOO_MANY = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
