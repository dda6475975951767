"""Progress on the screen, on a terminal and elsewhere."""

import io

import pytest

from jlebm.progress import Reporter
from reproduce.terminal import console
from reproduce.terminal.console import ConsoleReporter


class Terminal(io.StringIO):
    """What is written, as if it were a screen."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_it_is_a_reporter() -> None:
    """Breaks if the library's protocol gains a method that the screen does not have."""
    assert isinstance(ConsoleReporter(io.StringIO()), Reporter)


def test_elsewhere_a_line_tells_count_total_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a log file gets bars, markup is interpreted, or the last count is left out."""
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    out = io.StringIO()
    report = ConsoleReporter(out)
    report.line("seed [1]")
    with report.task("training", 4) as task:
        task.advance(3, "loss [0.5]")
        task.advance()
    lines = out.getvalue().splitlines()
    assert lines == [
        "seed [1]",
        "training: 3/4 (0 s)  loss [0.5]",
        "training: 4/4 (0 s)",
        "training: 4/4 (0 s)  done",
    ]


def test_short_work_says_nothing_elsewhere() -> None:
    """Breaks if every small step leaves lines in a log file."""
    out = io.StringIO()
    with ConsoleReporter(out).task("sampling", 2) as task:
        task.advance(2)
    assert out.getvalue() == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody at a terminal waits without a sign of how far it is."""
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with ConsoleReporter(out).task("sampling", 2) as task:
        task.advance(2)
    assert "sampling" in out.getvalue()
    assert "2/2" in out.getvalue()
