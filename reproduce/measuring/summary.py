"""The short table at the end of a command: its own rows, what is expected of them, what the paper reports."""

import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from jlebm.engines import parallel
from jlebm.text import shell_command
from reproduce import results
from reproduce.measuring.row_store import Subject
from reproduce.measuring.session import Session
from reproduce.results.overview import brief


def print_own_verdicts(questions: Sequence[Subject], session: Session, seeds: Sequence[int], folder: Path) -> None:
    """Print the verdicts on the rows of a command's subjects, then what was not measured and why."""
    if not parallel.first():
        return
    wanted = {(one.dataset, one.identity.label, one.model, one.learning) for one in questions}
    digests = {one.config_digest for one in questions}

    def ours(one: results.Measurement | results.Expectation) -> bool:
        return (one.dataset, one.label, one.model, one.learning) in wanted

    shared = {source for one in questions for source in one.shared}

    def asked(row: results.Measurement) -> bool:
        return ours(row) and (row.seed in seeds or row.source in shared)

    print_verdicts(asked, ours, digests, folder)
    sys.stdout.writelines(f"{line}\n" for line in session.not_measured())


def print_verdicts(
    asked: Callable[[results.Measurement], bool],
    held: Callable[[results.Expectation], bool],
    digests: Collection[str],
    folder: Path,
) -> None:
    """Print the headline verdicts of some stored rows on the terminal, and the command that shows all of them.

    Args:
        asked: selects rows.
        held: selects expectations.
        digests: configurations of both. An expectation with a value for another configuration is left out.
        folder: the results folder.

    Raises:
        UserError: a file of the results folder cannot be read.
    """
    stored = results.read_all(folder / "measured")
    measured = [row for row in stored if asked(row) and row.config_digest in digests]
    asked_of = [one for one in results.expected_of(folder) if held(one)]
    expected = [one for one in asked_of if one.value is None or one.config_digest in digests]
    terminal = sys.stdout.isatty()
    verdicts = results.verdicts_on(measured, expected, folder, stored)
    words = [f"{name}={values.pop()}" for name in ("dataset", "preset") if len(values := _of(measured, name)) == 1]
    again = shell_command("nox", "-s", "check", "--", "--all", *(["--only", *words] if words else []))
    color, width = terminal and "NO_COLOR" not in os.environ, shutil.get_terminal_size().columns if terminal else 200
    sys.stdout.write(brief(verdicts, results.paper_of(folder), again, folder=folder, color=color, width=width))


def _of(rows: Collection[results.Measurement], name: str) -> set[str]:
    return {getattr(row, name) for row in rows}
