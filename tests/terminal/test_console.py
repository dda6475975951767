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
        "training: 4/4 (0 s)  loss [0.5]",
        "training: 4/4 (0 s)  done",
    ]


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        """Return its seconds."""
        return self.now


def test_a_line_comes_every_half_minute() -> None:
    """Breaks if a log of ten hours gets a line a second, or a wait of minutes none, or the last losses are lost."""
    out, clock = io.StringIO(), Clock()
    with ConsoleReporter(out, clock).task("training", 1000) as task:
        for step in range(1000):
            if step % 100 == 0:  # losses are read every hundredth step, and hold until the next ones
                task.advance(0, f"loss {step}")
            clock.now += 0.125
            task.advance()
    lines = out.getvalue().splitlines()
    assert lines == [
        "training: 240/1000 (30 s)  loss 200",
        "training: 480/1000 (60 s)  loss 400",
        "training: 720/1000 (90 s)  loss 700",
        "training: 960/1000 (120 s)  loss 900",
        "training: 1000/1000 (125 s)  done",
    ]


@pytest.mark.parametrize("layers", [1, 3, 40])
def test_a_line_has_at_most_120_characters(layers: int) -> None:
    """Breaks if a deep hierarchy's losses wrap a log, or what there is room for is cut in the middle of a name."""
    out, clock = io.StringIO(), Clock()
    note = ", ".join(["-ELBO 1234", *(f"z{layer} {layer / 7:+.2f}" for layer in range(layers))])
    with ConsoleReporter(out, clock).task("training", 10) as task:
        clock.now += 31
        task.advance(1, note)
    line = out.getvalue().splitlines()[0]
    assert len(line) <= 120
    assert line.startswith("training: 1/10 (31 s)  -ELBO 1234, z0 +0.00")
    said = line.removesuffix(", ...").partition("  ")[2].split(", ")
    assert said == note.split(", ")[: len(said)]
    assert (len(said) == layers + 1) == (layers < 40)


def test_a_name_without_end_is_cut() -> None:
    """Breaks if a path in the name of a task makes a line of thousands of characters."""
    out, clock = io.StringIO(), Clock()
    with ConsoleReporter(out, clock).task("x" * 500, 10) as task:
        clock.now += 31
        task.advance(1, "loss 1")
    assert [len(line) for line in out.getvalue().splitlines()] == [120, 120]


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
