"""The table at the end of a command: its own rows, what is expected of them, what the paper reports."""

import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from reproduce import results
from reproduce.measuring.places import expected_of, paper_of


def print_verdicts(
    asked: Callable[[results.Measurement], bool],
    held: Callable[[results.Expectation], bool],
    digests: Collection[str],
    folder: Path,
) -> None:
    """Print the verdicts of some stored rows on the terminal.

    Args:
        asked: which rows.
        held: which expectations.
        digests: of the configurations that both are of. An expectation of another one, with a value, says nothing about
            these rows, which are then shown alone.
        folder: the results folder.

    Raises:
        UserError: a file of the results folder cannot be read.
    """
    measured = [row for row in results.read_all(folder / "measured") if asked(row) and row.config_digest in digests]
    expected = [one for one in expected_of(folder) if held(one)]
    expected = [one for one in expected if one.value is None or one.config_digest in digests]
    terminal = sys.stdout.isatty()
    sys.stdout.write(
        results.render(
            results.check(measured, expected),
            paper_of(folder),
            "terminal",
            color=terminal,
            width=shutil.get_terminal_size().columns if terminal else 200,
            commands=False,
        )
    )
