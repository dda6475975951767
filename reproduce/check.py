"""Every stored number against what is expected of it: PASS, DRIFT, FAIL, or NOT RUN with the reason.

    python -m reproduce.check
    python -m reproduce.check --format markdown
    python -m reproduce.check --write-expected dataset=cifar10 preset=tiny

A value is a PASS only where its expectation still is what the rows of its basis make. The exit code is 1 where
something FAILs, 2 where a file can't be read, else 0.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jlebm.errors import UserError, exit_on_user_error, nearest
from jlebm.text import printable
from reproduce.results import (
    TIMINGS,
    Expectation,
    Timing,
    check,
    expect,
    held_to_basis,
    newest_of_each_seed,
    read_all,
    read_expected,
    read_paper,
    render,
    rewrite_expected,
)
from reproduce.results.expectation import QUESTION, describe, question
from reproduce.results.expected_file import replaced
from reproduce.results.measurement import Measurement
from reproduce.results.rows import read
from reproduce.results.verdicts import selected
from reproduce.terminal.parsing import parse

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
    arguments = parse(Arguments, argv, __doc__)
    if not arguments.results.is_dir():
        raise UserError(f"the results folder {arguments.results} does not exist")
    if arguments.write_expected:
        return _write(arguments.results, arguments.write_expected)
    measured = read_all(arguments.results / "measured")
    verdicts = held_to_basis(check(measured, read_expected(arguments.results / "expected.toml")), measured)
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
    faults = [timing for timing in read(arguments.results / "measured" / TIMINGS, Timing) if timing.fault]
    sys.stdout.writelines(f"FAIL {timing.where} {timing.fault}; restore it\n" for timing in faults)
    return int(bool(faults) or any(verdict.status == "FAIL" for verdict in verdicts))


def _write(results: Path, selectors: Sequence[str]) -> int:
    """Expect anew what the stored rows say, with the lock of expected.toml held; say what was written."""
    wanted = _selectors(selectors)
    skipped: list[str] = []

    def make(old: Sequence[Expectation]) -> Sequence[Expectation]:
        new, left = _expected_anew(read_all(results / "measured"), wanted, old)
        skipped.extend(left)
        return new

    for one in rewrite_expected(results / "expected.toml", make):
        said = f"written: {describe(one)} = {one.value:g} (tolerance {one.tolerance:.4g}; {one.basis})"
        sys.stdout.write(printable(said) + "\n")
    for reason in skipped:
        sys.stdout.write(f"left as it was: {printable(reason)}\n")
    return 0


def _selectors(given: Sequence[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for selector in given:
        name, equals, value = selector.partition("=")
        if not equals or name not in SELECTORS:
            raise UserError(f"{selector!r} is not a selector, NAME=VALUE{nearest(name, SELECTORS)}")
        if wanted.setdefault(name, value) != value:
            twice = f"{name!r} is selected twice, {wanted[name]!r} and {value!r}"
            raise UserError(f"{twice}; run the command once for each")
    return wanted


def _expected_anew(
    measured: Sequence[Measurement], wanted: Mapping[str, str], old: Sequence[Expectation]
) -> tuple[list[Expectation], list[str]]:
    """Return the expectations of the rows that are wanted, and why some are left as they were."""
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in measured:
        if all(selected(row, name).lower() == value.lower() for name, value in wanted.items()):
            # One expectation for each question; where rows of several configurations answer it, the newest's.
            key = (*question(row), row.images, row.weights, row.complete)
            groups.setdefault(key, []).append(row)
    if not groups:
        said = " ".join(f"{name}={value}" for name, value in wanted.items())
        raise UserError(f"no stored row has {said}; measure first, or select others")
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
    return new, skipped


if __name__ == "__main__":
    sys.exit(main())
