"""Progress bars for people. Nothing here reaches a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, total). On a file or in CI it prints nothing but what is printed after it."""
    console = Console(stderr=True)
    quiet = not console.is_terminal or bool(os.environ.get("CI"))
    columns = (
        TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn(), TextColumn("units"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
