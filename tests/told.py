"""A reporter that keeps what it is told, for tests of what is said on the way."""

from collections.abc import Iterator
from contextlib import contextmanager


class _ToldTask:
    def __init__(self, lines: list[str], name: str, total: int | None):
        self.lines, self.name, self.total, self.done = lines, name, total, 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self.lines.append(f"{self.name}: {self.done}/{self.total} {note}".rstrip())


class Told:
    """Keeps each line, and each advance of a task as "name: done/total note"."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[_ToldTask]:
        """Keep what a task of that name counts."""
        yield _ToldTask(self.lines, name, total)

    @property
    def text(self) -> str:
        """All that was told, a line each."""
        return "\n".join(self.lines)
