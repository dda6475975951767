"""Compare every stored number with its expectation: a summary, what FAILs or DRIFTs, and the commands to run.

    python -m reproduce.check                                   the summary
    python -m reproduce.check --all --only dataset=cifar10      every verdict, of one dataset
    python -m reproduce.check --json                            for machines: JSON alone on stdout
    python -m reproduce.check --table verdicts.csv              every verdict as CSV, Markdown (.md) or LaTeX (.tex)
    python -m reproduce.check --write-expected dataset=cifar10 preset=tiny

PASS, DRIFT and FAIL compare a measured number with an expected one; the expectation must still follow from the rows
of its basis. NO EXPECTATION: measured, but nothing is expected. TOO FEW SEEDS: measured on fewer seeds than expected.
STALE: measured, but not as expected, or in another folder than that of its basis. NEVER RUN: no row.

JSON: rows (their number), counts (by verdict), never_run_for_want_of_a_gpu, verdicts (a list of records with the keys
of the CSV, see reproduce/results/verdict_records.py), queue (recipe, command, needs, needs_gpu, results) and faults
(damaged rows of the benchmark).

The exit code is 1 if something FAILs, 2 if a file cannot be read, else 0.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jlebm.errors import UserError, exit_on_user_error, nearest
from jlebm.files import write_text
from jlebm.text import printable
from reproduce.results import (
    TIMINGS,
    Expectation,
    Reported,
    Timing,
    Verdict,
    expect,
    newest_of_each_seed,
    read_all,
    read_expected,
    read_paper,
    render,
    rewrite_expected,
    verdicts_on,
)
from reproduce.results.default_folder import RESULTS, naming
from reproduce.results.expectation import QUESTION, describe, question
from reproduce.results.expected_file import replaced
from reproduce.results.measurement import Measurement
from reproduce.results.overview import overview
from reproduce.results.rows import read
from reproduce.results.verdict_records import answer, as_csv
from reproduce.results.verdicts import selected
from reproduce.terminal.parsing import parse

WIDE, WIDEST = 120, 200  # characters of text and of tables, without a terminal
SELECTORS = ("protocol", *QUESTION, "images", "weights", "config_digest", "complete")


@dataclass(frozen=True)
class Arguments:
    """Compare the stored rows with their expectations."""

    all: bool = False
    """Print every verdict in tables, with reasons and commands."""
    only: tuple[str, ...] = ()
    """Only results with these fields (dataset=cifar10 preset=cpu metric=fid ...), also for the exit code."""
    json: bool = False
    """Print JSON instead."""
    table: Path | None = None
    """Also write every verdict into this file; its suffix chooses .csv, .md or .tex."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    write_expected: tuple[str, ...] = ()
    """Rewrite the entries of expected.toml from the stored rows with these fields (preset=tiny metric=fid ...)."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or write expectations; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    if not arguments.results.is_dir():
        raise UserError(f"the results folder {arguments.results} does not exist")
    if arguments.table is not None and arguments.table.suffix not in TABLES:
        raise UserError(f"--table {arguments.table} ends in none of {', '.join(TABLES)}; give it one of these suffixes")
    if arguments.write_expected:
        return _write(arguments.results, arguments.write_expected)
    measured = read_all(arguments.results / "measured")
    found = verdicts_on(measured, read_expected(arguments.results / "expected.toml"), arguments.results)
    verdicts = [replace(one, command=naming(arguments.results, one.command)) for one in found]
    paper = read_paper(arguments.results / "paper.toml")
    for verdict in verdicts:
        if verdict.expectation.paper and verdict.expectation.paper not in paper:
            raise UserError(
                f"{arguments.results / 'expected.toml'} names {verdict.expectation.paper!r}, which is not a key of "
                f"paper.toml{nearest(verdict.expectation.paper, paper)}"
            )
    timings = read(arguments.results / "measured" / TIMINGS, Timing)
    faults = [f"{timing.where} {timing.fault}; restore it" for timing in timings if timing.fault]
    if arguments.only:
        verdicts = _selected_alone(verdicts, _selectors(arguments.only, QUESTION))
    if arguments.table is not None:
        write_text(arguments.table, TABLES[arguments.table.suffix](verdicts, paper))
    if arguments.json:
        sys.stdout.write(json.dumps(answer(verdicts, paper, len(measured), faults), indent=2, allow_nan=False) + "\n")
    else:
        terminal = sys.stdout.isatty()
        color = terminal and "NO_COLOR" not in os.environ
        columns = shutil.get_terminal_size().columns if terminal else 0
        if arguments.all:
            text = render(verdicts, paper, "terminal", color=color, width=columns or WIDEST)
        else:
            again = naming(arguments.results, "nox -s check -- --all")
            text = overview(verdicts, paper, len(measured), again, color=color, width=columns or WIDE)
        sys.stdout.write(text)
        sys.stdout.writelines(f"FAIL {fault}\n" for fault in faults)
    return int(bool(faults) or any(verdict.status == "FAIL" for verdict in verdicts))


TABLES: dict[str, Callable[[Sequence[Verdict], Mapping[str, Reported]], str]] = {
    ".csv": as_csv,
    ".md": partial(render, format="markdown"),
    ".tex": partial(render, format="latex"),
}
"""Writers of tables by the suffix of the file."""


def _selected_alone(verdicts: Sequence[Verdict], wanted: Mapping[str, str]) -> list[Verdict]:
    """Return the selected verdicts.

    Raises:
        UserError: there are none.
    """
    found = [
        verdict
        for verdict in verdicts
        if all(selected(verdict.expectation, name).lower() == value.lower() for name, value in wanted.items())
    ]
    if not found:
        raise UserError(f"no result has {_said(wanted)}; select others")
    return found


def _write(results: Path, selectors: Sequence[str]) -> int:
    """Rewrite expectations from the stored rows, under the lock of expected.toml; print what was written."""
    wanted = _selectors(selectors, SELECTORS)
    skipped: list[str] = []

    def make(old: Sequence[Expectation]) -> Sequence[Expectation]:
        new, left = _expected_anew(results, wanted, old)
        skipped.extend(left)
        return new

    for one in rewrite_expected(results / "expected.toml", make):
        said = f"written: {describe(one)} = {one.value:g} (tolerance {one.tolerance:.4g}; {one.basis})"
        sys.stdout.write(printable(said) + "\n")
    for reason in skipped:
        sys.stdout.write(f"left as it was: {printable(reason)}\n")
    return 0


def _selectors(given: Sequence[str], known: Collection[str]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for selector in given:
        name, equals, value = selector.partition("=")
        if not equals or name not in known:
            raise UserError(f"{selector!r} is not a selector, NAME=VALUE{nearest(name, known)}")
        if wanted.setdefault(name, value) != value:
            twice = f"{name!r} is selected twice, {wanted[name]!r} and {value!r}"
            raise UserError(f"{twice}; run the command once for each")
    return wanted


def _said(wanted: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in wanted.items())


def _expected_anew(
    results: Path, wanted: Mapping[str, str], old: Sequence[Expectation]
) -> tuple[list[Expectation], list[str]]:
    """Return the expectations from the selected rows, and why some are left unchanged."""
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in read_all(results / "measured"):
        if all(selected(row, name).lower() == value.lower() for name, value in wanted.items()):
            # One expectation for each question, from the newest configuration that answers it.
            key = (*question(row), row.images, row.weights, row.complete)
            groups.setdefault(key, []).append(row)
    if not groups:
        raise UserError(f"no stored row has {_said(wanted)}; measure first, or select others")
    new, skipped = [], []
    for rows in groups.values():
        newest = max(rows, key=lambda row: row.time)
        made_alike = ("protocol", "config_digest")
        alike = [row for row in rows if all(getattr(row, name) == getattr(newest, name) for name in made_alike)]
        latest = newest_of_each_seed(alike)
        try:
            place = replaced(expect(latest), old)
            new.append(expect(latest, None if place is None else old[place], results))
        except UserError as error:
            skipped.append(str(error))
    if not new:
        raise UserError("nothing can be expected: " + "; ".join(skipped))
    return new, skipped


if __name__ == "__main__":
    sys.exit(main())
