"""The protocol to which the library reports progress; by default nothing is shown."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """A running task."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done; `note` is a short text shown beside the count."""


@runtime_checkable
class Reporter(Protocol):
    """Receives the progress of long work; the library never prints by itself."""

    def line(self, text: str) -> None:
        """Report one line of text."""

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: not known beforehand)."""
        ...


class _SilentTask:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


class _Silent:
    def line(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        yield _SilentTask()


SILENT: Reporter = _Silent()
