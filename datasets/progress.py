"""The progress bar of making a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Show(Protocol):
    """Shows the work done so far and the number of failed shards."""

    def __call__(self, completed: int, failed: int = 0) -> None:
        """Show them."""


@contextlib.contextmanager
def progress_bar(enabled: bool, title: str, done: int, total: int) -> Iterator[Show]:
    """A bar on stderr with rate, remaining time and failures.

    Args:
        enabled: whether there is one.
        title: what stands before it.
        done: frames that were there before.
        total: frames in all.
    """
    if not enabled:
        yield lambda completed, failed=0: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        def render(self, task):
            return super().render(task) if task.speed is None else f"{task.speed:.1f} frames/s"

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate("- frames/s"))
    columns += (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[failures]}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, completed=done, total=total, failures="")

        def show(completed: int, failed: int = 0) -> None:
            bar.update(task, completed=done + completed, failures=f"{failed} failed" if failed else "")

        yield show
