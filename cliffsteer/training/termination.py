"""What SIGTERM does to a training: a line, and an exit code of its own."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)

TERMINATED = 128 + signal.SIGTERM
"""Exit code after that signal."""


def terminated() -> SystemExit:
    """Say that a training was ended from outside, and give what ends the process."""
    logger.warning("Terminated. What is written stays; the same command goes on from there.")
    return SystemExit(TERMINATED)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end what runs here as Ctrl-C does, by an exception."""

    def stop(*_: Any) -> None:
        raise terminated()

    if threading.current_thread() is not threading.main_thread():  # only there may it be caught
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
