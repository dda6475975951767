"""Table at the end of a command: its own rows, their expectations, the paper's values."""

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
    """Print the verdicts on selected rows.

    Args:
        asked: selects rows.
        held: selects expectations.
        digests: configurations of both. An expectation with a value for another configuration is left out.
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
