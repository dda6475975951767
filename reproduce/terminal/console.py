"""Progress on the screen: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
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

PLAIN_INTERVAL = 30.0  # seconds between two plain lines of one task
LONGEST_LINE = 120  # characters of a plain line


class _BarTask:
    def __init__(self, progress: Progress, task: TaskID):
        self.progress, self.task = progress, task

    def advance(self, count: int = 1, note: str = "") -> None:
        if note:  # the last note stays
            self.progress.update(self.task, note=note)
        self.progress.advance(self.task, count)


class _PlainTask:
    def __init__(self, console: Console, name: str, total: int | None, clock: Callable[[], float]):
        self.console, self.name, self.total, self.clock = console, name, total, clock
        self.done = 0
        self.note = ""
        self.started = self.last_line = clock()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.note = note or self.note  # the last note stays
        now = self.clock()
        if now - self.last_line >= PLAIN_INTERVAL:
            self.last_line = now
            self.say(self.note)

    def say(self, note: str) -> None:
        of = f"/{self.total}" if self.total is not None else ""
        line = f"{self.name}: {self.done}{of} ({self.clock() - self.started:.0f} s)"
        self.console.print(shortened(printable(line), printable(note)), markup=False)


def shortened(line: str, note: str) -> str:
    """Return a line with as many comma-separated parts of a note as fit."""
    parts = note.split(", ") if note else []
    for kept in range(len(parts), 0, -1):
        more = "" if kept == len(parts) else ", ..."
        whole = f"{line}  {', '.join(parts[:kept])}{more}"
        if len(whole) <= LONGEST_LINE:
            return whole
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."


class ConsoleReporter:
    """Progress on stderr, so that stdout stays for results: rich bars on a terminal, plain lines elsewhere.

    A plain line comes every half minute and has at most 120 characters.

    Args:
        out: the stream; by default stderr.
        clock: seconds since any moment, to time plain lines.
    """

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.console = Console(file=out or sys.stderr, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Print one line."""
        self.console.print(printable(text), markup=False)

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        """Open a task of `total` units; None if the number is unknown."""
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
        task = _PlainTask(self.console, name, total, self.clock)
        yield task
        if task.last_line != task.started or self.clock() - task.started >= PLAIN_INTERVAL:
            task.say("done")
