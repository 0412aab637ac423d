"""Writing files and folders so that an interruption never leaves half of one, nor loses what was there before."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; on success the file takes the place of ``path`` at once.

    Args:
        path: the file to write; its folder is created when it is missing.

    Yields:
        The temporary path. When the body fails it is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename is None:  # a failed write does not say where
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; on success it takes the place of ``path``.

    Files of an existing folder that the new one does not hold are kept.

    Yields:
        The temporary folder. When the body fails it is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        mask = _umask()
        temporary.chmod(0o777 & ~mask)
        for entry in temporary.iterdir():
            if entry.is_file():
                entry.chmod(0o666 & ~mask)
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def json_ready(value: Any) -> Any:
    """The value, of dicts, lists and numbers, with None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(new: Path, path: Path) -> None:
    """Put ``new`` in the place of ``path``; the old folder goes only when the new one is there."""
    if not path.exists():
        new.rename(path)
        return
    for entry in path.iterdir():
        if not (new / entry.name).exists():
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, new / entry.name)
    old = new.with_suffix(".old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
