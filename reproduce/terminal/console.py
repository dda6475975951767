"""Progress on the screen: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jlebm.progress import Task
from jlebm.text import printable

PLAIN_INTERVAL = 10.0  # seconds between two plain lines of one task


class _BarTask:
    def __init__(self, progress: Progress, task: TaskID):
        self.progress, self.task = progress, task

    def advance(self, count: int = 1, note: str = "") -> None:
        self.progress.update(self.task, advance=count, note=note)


class _PlainTask:
    def __init__(self, console: Console, name: str, total: int | None):
        self.console, self.name, self.total = console, name, total
        self.done = 0
        self.started = self.last_line = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last_line >= PLAIN_INTERVAL:
            self.last_line = now
            self.say(note)

    def say(self, note: str) -> None:
        of = f"/{self.total}" if self.total is not None else ""
        elapsed = time.monotonic() - self.started
        self.console.print(f"{self.name}: {self.done}{of} ({elapsed:.0f} s){'  ' + note if note else ''}", markup=False)


class ConsoleReporter:
    """Progress on stderr, so that stdout stays for results: rich bars on a terminal, plain lines elsewhere."""

    def __init__(self, out: TextIO | None = None):
        self.console = Console(file=out or sys.stderr, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Say one thing, once."""
        self.console.print(printable(text), markup=False)

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        """Open a piece of work of `total` units (None: not known beforehand)."""
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console) as progress:
                yield _BarTask(progress, progress.add_task(name, total=total, note=""))
            return
        task = _PlainTask(self.console, name, total)
        yield task
        if task.last_line != task.started or time.monotonic() - task.started >= PLAIN_INTERVAL:
            task.say("done")
