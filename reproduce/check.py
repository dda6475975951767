"""Every stored number against what is expected of it: PASS, DRIFT, FAIL, or NOT RUN with the reason.

    python -m reproduce.check
    python -m reproduce.check --format markdown
    python -m reproduce.check --write-expected dataset=cifar10 preset=tiny

The exit code is 1 where something FAILs, 2 where a file can't be read, else 0.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jlebm.errors import UserError, exit_on_user_error, nearest
from reproduce.results import (
    check,
    expect,
    newest_of_each_seed,
    read_all,
    read_expected,
    read_paper,
    render,
    write_expected,
)
from reproduce.results.expectation import QUESTION, describe, replaced
from reproduce.results.measurement import Measurement

RESULTS = Path(__file__).resolve().parents[1] / "results"
SELECTORS = ("protocol", *QUESTION, "images", "weights", "config_digest", "complete")


@dataclass(frozen=True)
class Arguments:
    """Compare the stored rows with what is expected of them."""

    format: Literal["terminal", "markdown", "latex"] = "terminal"
    """How the table is written."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    write_expected: tuple[str, ...] = ()
    """Write expected.toml anew from the stored rows that these selectors (preset=tiny metric=fid ...) select."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or write expectations; return the exit code."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    if not arguments.results.is_dir():
        raise UserError(f"the results folder {arguments.results} does not exist")
    measured = read_all(arguments.results / "measured")
    if arguments.write_expected:
        return _write(arguments.results / "expected.toml", measured, arguments.write_expected)
    verdicts = check(measured, read_expected(arguments.results / "expected.toml"))
    paper = read_paper(arguments.results / "paper.toml")
    for verdict in verdicts:
        if verdict.expectation.paper and verdict.expectation.paper not in paper:
            raise UserError(
                f"{arguments.results / 'expected.toml'} names {verdict.expectation.paper!r}, which is not a key of "
                f"paper.toml{nearest(verdict.expectation.paper, paper)}"
            )
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 200
    color = terminal and "NO_COLOR" not in os.environ
    sys.stdout.write(render(verdicts, paper, arguments.format, color=color, width=width))
    return int(any(verdict.status == "FAIL" for verdict in verdicts))


def _write(path: Path, measured: Sequence[Measurement], selectors: Sequence[str]) -> int:
    wanted = {}
    for selector in selectors:
        name, equals, value = selector.partition("=")
        if not equals or name not in SELECTORS:
            raise UserError(f"{selector!r} is not a selector, NAME=VALUE{nearest(name, SELECTORS)}")
        wanted[name] = value
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in measured:
        if all(str(getattr(row, name)).lower() == value.lower() for name, value in wanted.items()):
            # One expectation for each question; where rows of several configurations answer it, the newest's.
            key = tuple(getattr(row, name) for name in (*QUESTION, "images", "weights", "complete"))
            groups.setdefault(key, []).append(row)
    if not groups:
        raise UserError(f"no stored row has {' '.join(selectors)}; measure first, or select others")
    old = read_expected(path)
    new, skipped = [], []
    for rows in groups.values():
        newest = max(rows, key=lambda row: row.time)
        made_alike = ("protocol", "config_digest")
        alike = [row for row in rows if all(getattr(row, name) == getattr(newest, name) for name in made_alike)]
        latest = newest_of_each_seed(alike)
        try:
            place = replaced(expect(latest), old)
            new.append(expect(latest, None if place is None else old[place]))
        except UserError as error:
            skipped.append(str(error))
    if not new:
        raise UserError("nothing can be expected: " + "; ".join(skipped))
    write_expected(path, new)
    for one in new:
        sys.stdout.write(f"written: {describe(one)} = {one.value:g} (tolerance {one.tolerance:.4g}; {one.basis})\n")
    for reason in skipped:
        sys.stdout.write(f"left as it was: {reason}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
