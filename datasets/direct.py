"""Reading frames past HDF5: one system call into the tensors themselves.

A shard stores frames uncompressed, one to a chunk, the chunks of a dataset one after another in the order of
trajectories and frames. Where that is so, frame (i, t) of T lies ``size · (i T + t)`` bytes after the first, and needs
neither HDF5's look-up of chunks nor a copy between buffers. A dataset of any other layout is read by h5py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import h5py
import numpy as np

_AT_ONCE = 512  # buffers of a system call; the limit is 1024
_MOST = 1 << 30  # bytes of a system call; the limit is 2 GiB


def first_byte(dataset: h5py.Dataset) -> int | None:
    """Where the first frame of a dataset (trajectory, time, *frame) lies in its file; None unless the others follow it.

    It looks at every chunk's place once, which takes about a microsecond for each.
    """
    if dataset.dtype != np.dtype("<f4") or sys.byteorder != "little":
        return None
    if dataset.chunks != (1, 1, *dataset.shape[2:]) or dataset.id.get_create_plist().get_nfilters():
        return None
    n_trajectories, n_frames = dataset.shape[:2]
    size, starts = 4 * int(np.prod(dataset.shape[2:])), np.full(n_trajectories * n_frames, -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        if chunk.size == size:
            starts[chunk.chunk_offset[0] * n_frames + chunk.chunk_offset[1]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    in_order = starts[0] >= 0 and np.array_equal(starts, starts[0] + size * np.arange(len(starts)))
    return int(starts[0]) if in_order else None


def read_into(fd: int, buffers: Sequence[np.ndarray], offset: int) -> bool:
    """Fill contiguous buffers of one size, one after another, from a place in a file; False when it ends before."""
    size, count = buffers[0].nbytes, len(buffers)
    if size > _MOST:
        return all(_read_large(fd, buffer, offset + i * size) for i, buffer in enumerate(buffers))
    step = max(1, min(_AT_ONCE, _MOST // size))
    return all(
        os.preadv(fd, buffers[i : i + step], offset + i * size) == size * min(step, count - i)
        for i in range(0, count, step)
    )


def _read_large(fd: int, buffer: np.ndarray, offset: int) -> bool:
    flat = memoryview(buffer).cast("B")
    pieces = ((i, flat[i : i + _MOST]) for i in range(0, len(flat), _MOST))
    return all(os.preadv(fd, [piece], offset + i) == len(piece) for i, piece in pieces)
