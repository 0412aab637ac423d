"""Writing files so that a reader never sees half of one: a temporary name in the same folder, fsync, then rename.

HDF5 brings the process down when a write fails while it closes a file (disk full, quota, a file-size limit), or when
Ctrl-C interrupts it half-way. So it writes through ``AtomicFile``, which remembers the first failure, lets HDF5 believe
that all is well, and raises it as one sentence once HDF5 is out of the way; and ``uninterrupted`` makes Ctrl-C wait.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from cliffsteer.storage import sha256

_TEMPORARY = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.tmp")


class AtomicFile:
    """A binary file that takes its name only when it is complete and safely on the disk.

    Args:
        path: the final name; its folder must exist. A file of that name is replaced by ``publish``, not before.

    Raises:
        OSError: the temporary file cannot be made, or (from ``check``, ``seal``) a write failed.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        self._position = self._size = 0
        self._failure: OSError | None = None
        try:
            self._fd: int | None = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _sentence(self.path, error) from error

    # ---------------------------------------------------------------- the file protocol, as h5py needs it

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def write(self, data: bytes | memoryview) -> int:
        """Write at the position; a failure is kept for ``check``."""
        view = memoryview(data).cast("B")
        self._guarded(self._write_all, view, self._position)
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend to a size."""
        self._size = self._position if size is None else size
        self._guarded(os.ftruncate, self._fd, self._size)
        return self._size

    def read(self, size: int = -1) -> bytes:
        """Read from the position."""
        data = os.pread(self._fd, self._size if size < 0 else size, self._position)
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Read from the position into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""

    # --------------------------------------------------------------------------------------- safe endings

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise _sentence(self.path, self._failure) from self._failure

    def seal(self) -> str:
        """Bring everything to the disk and close; returns the sha256 of the content."""
        self._guarded(os.fsync, self._fd)
        self.check()
        os.close(self._fd)
        self._fd = None
        return sha256(self.temporary)

    def publish(self) -> None:
        """Give a sealed file its name."""
        os.replace(self.temporary, self.path)
        _sync_folder(self.path.parent)

    def abort(self) -> None:
        """Close and remove the temporary file; does nothing after ``publish``."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self.temporary.unlink(missing_ok=True)

    def _guarded(self, function, *arguments) -> None:
        if self._failure is None:
            try:
                function(*arguments)
            except OSError as error:
                self._failure = error

    def _write_all(self, view: memoryview, position: int) -> None:
        while len(view):
            written = os.pwrite(self._fd, view, position)
            view, position = view[written:], position + written


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the body has ended."""
    in_main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT) if in_main else None
    if not callable(previous):  # only the main thread is interrupted, and only by a handler of Python's
        yield
        return
    pending: list[tuple] = []
    signal.signal(signal.SIGINT, lambda *arguments: pending.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if pending:
            previous(*pending[0])


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file safely.

    Raises:
        OSError: it cannot be written; nothing is left behind and an older file of that name is untouched.
    """
    file = AtomicFile(path)
    try:
        file.write(data)
        file.seal()
        file.publish()
    finally:
        file.abort()


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left under a temporary name."""
    for entry in folder.iterdir():
        if _TEMPORARY.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sentence(path: Path, error: OSError) -> OSError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OSError(
            f"No space left to write {path} ({error.strerror}): free some and run the same command again; what was"
            " finished before is kept."
        )
    return OSError(f"Cannot write {path} ({error.strerror}): check the folder and its permissions, then run again.")
