"""Tables for a page: cells with what they state, columns that sort as numbers, columns that filter."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import tables
from figures.page_tables import TABLES
from figures.report.contents import Contents, Judged
from figures.stored import Stored
from reproduce.results import METRICS, Measurement, timing
from reproduce.results.cited import Cited
from reproduce.results.default_folder import naming
from reproduce.results.rendering import STYLES, judged, number, reported
from reproduce.results.rows import Row
from reproduce.results.table_lines import BASELINES

TONES = {"green": "good", "yellow": "warn", "red": "bad"}  # by the colour that a verdict has on a terminal
QUIET = "quiet"
FILTERED = {"dataset", "data", "preset", "system", "model", "prior", "metric", "verdict", "layer", "score", "digit",
            "device", "of", "data, model", "what grows"}  # fmt: skip
"""The headers of columns that a reader chooses a value of."""
EMPTY = ("-", "", timing.NOT_MEASURED)
TITLES = {system.name: system.title.partition(":")[0] for system in BASELINES}
NUMBER = re.compile(rf"(-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?:x| ({'|'.join(timing.UNITS)}))?(?= |$|,)")


@dataclass(frozen=True)
class Table:
    """One table; a cell is a text, `Cited` where it states rows."""

    name: str
    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str = ""
    tones: Mapping[str, str] = field(default_factory=dict)
    """By the text of a verdict."""


def measured_table(contents: Contents) -> Table:
    """Return a line for each mean over seeds, and for what was never run, with its verdict."""
    header = ("dataset", "preset", "system", "metric", "of", "measured", "verdict", "seeds", "images", "expected",
              "paper reports")  # fmt: skip
    lines, tones = [], {}
    for one in contents.judged:
        verdict, about = one.verdict, one.verdict.expectation
        said = says(one)
        tones[said] = tone(one)
        mean = "-" if verdict.mean is None else number(verdict.mean, about.metric, verdict.spread)
        expected = "-" if about.value is None else number(about.value, about.metric, about.tolerance)
        lines.append(
            (
                about.dataset,
                about.label,
                system_of(about.learning),
                METRICS[about.metric].label,
                about.of.name,
                Cited(mean, one.rows, verdict),
                Cited(said, one.rows, verdict),
                str(verdict.count or "-"),
                str(verdict.images or "-"),
                expected,
                reported(contents.paper.get(about.paper), about.metric),
            )
        )
    return Table("measured", "Every mean, with its verdict", header, lines, tones=tones)


def rows_table(contents: Contents) -> Table:
    """Return a line for each stored row."""
    header = ("dataset", "preset", "system", "metric", "of", "seed", "value", "verdict", "images", "date")
    verdicts = {id(row): one for one in contents.judged for row in one.rows}
    lines, tones = [], {}
    for row in contents.rows:
        one = verdicts.get(id(row))
        said = "in no mean" if one is None else says(one)
        tones[said] = QUIET if one is None else tone(one)
        lines.append(
            (
                row.dataset,
                row.label,
                system_of(row.learning),
                METRICS[row.metric].label,
                row.of.name,
                str(row.seed),
                Cited(number(row.value, row.metric), (row,)),
                said,
                str(row.images),
                row.date[:10],
            )
        )
    return Table("rows", "Every stored row", header, lines, tones=tones)


def papers_tables(contents: Contents) -> list[Table]:
    """Return the tables that answer one question each, then those of the paper with what was measured beside it."""
    verdicts, paper = [one.verdict for one in contents.judged], contents.paper
    stored = Stored(contents.results, contents.rows, verdicts, paper, contents.timings, contents.awaited)
    found = []
    for one in TABLES:
        if one.title and not isinstance(made := one.make(stored), str):
            found.append(Table(one.name, one.title, *made))
    found += [
        Table(
            "speed",
            "Speed beside a plain implementation",
            timing.SPEED_HEADER,
            timing.speed_cells(contents.timings, contents.awaited),
            " ".join(f"Missed: {one}." for one in timing.reasons(contents.timings)),
        ),
        Table("scale", "How cost grows", timing.SCALE_HEADER, timing.scale_cells(contents.timings)),
    ]
    for name in tables.TABLES:
        header, lines = tables.join(name, paper, verdicts)
        title = f"The paper's {name.replace('table', 'Table ')}" if name != "ood" else "The paper's detection scores"
        found.append(Table(f"paper-{name}", f"{title}, and what was measured", header, lines))
    return [one for one in found if one.lines]


def says(one: Judged) -> str:
    """Return the verdict in words, as `check` and the tables say it."""
    return one.verdict.status if one.verdict.mean is None else judged(one.verdict)


def tone(one: Judged) -> str:
    """Return how a verdict is coloured."""
    return TONES.get(STYLES.get(one.verdict.status, "").split(" ")[-1], QUIET)


def tally(contents: Contents) -> list[tuple[str, str, int]]:
    """Return the verdicts with their tones and counts, those that need attention first."""
    order = ("bad", "warn", "good", QUIET)
    counts = Counter((says(one), tone(one)) for one in contents.judged)
    return sorted(((said, how, count) for (said, how), count in counts.items()), key=lambda one: order.index(one[1]))


def system_of(learning: str) -> str:
    """Return a system's title; the learning scheme for this project's own models, "data" if nothing was learned."""
    return TITLES.get(learning, learning) or "data"


def encode(table: Table, ids: Mapping[int, int], verdicts: Mapping[int, int]) -> dict[str, Any]:
    """Return a table as JSON: a cell is a text, or has its number, its rows, its verdict and its tone beside it.

    Args:
        table: which.
        ids: the place of a row in the page's list, by its `id`.
        verdicts: the place of a verdict in the page's list, by its `id`.
    """
    columns = [[line[place] for line in table.lines] for place in range(len(table.header))]
    numeric = [_numeric(column) for column in columns]
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "columns": [
            {"title": name, "number": is_number, "filter": name in FILTERED and 1 < len(set(column)) <= MOST_CHOICES}
            for name, is_number, column in zip(table.header, numeric, columns, strict=True)
        ],
        "lines": [
            [
                _cell(cell, is_number, table.tones.get(cell, "") if name == "verdict" else "", (ids, verdicts))
                for name, cell, is_number in zip(table.header, line, numeric, strict=True)
            ]
            for line in table.lines
        ],
    }


MOST_CHOICES = 90  # values of a column that has a filter


def _cell(
    cell: str, is_number: bool, how: str, places: tuple[Mapping[int, int], Mapping[int, int]]
) -> str | dict[str, Any]:
    ids, verdicts = places
    made: dict[str, Any] = {"t": str(cell)}
    if is_number and (value := value_of(cell)) is not None:
        made["n"] = value
    if isinstance(cell, Cited):
        rows = known(cell.rows, ids)
        if rows:
            made["r"] = rows
        if id(cell.verdict) in verdicts:
            made["v"] = verdicts[id(cell.verdict)]
    if how:
        made["how"] = how
    return str(cell) if len(made) == 1 else made


def known(rows: Iterable[Row], ids: Mapping[int, int]) -> list[int]:
    """Return the places of rows in the page's list."""
    return [ids[id(row)] for row in rows if id(row) in ids]


def _numeric(column: Sequence[str]) -> bool:
    filled = [cell for cell in column if cell not in EMPTY]
    return bool(filled) and all(value_of(cell) is not None for cell in filled)


def value_of(cell: str) -> float | None:
    """Return the number that a cell begins with, a time in seconds; None if it begins with none."""
    found = NUMBER.match(cell)
    return float(found[1].replace(",", "")) * timing.UNITS.get(found[2] or "s", 1.0) if found else None


def all_rows(contents: Contents) -> list[Row]:
    """Return every row that a cell may state: the measured ones, then the timed ones."""
    rows: list[Row] = [*contents.rows, *contents.timings]
    return rows


def command_of(row: Row, results: Path) -> str:
    """Return the command that measures a row of a results folder anew."""
    if isinstance(row, Measurement):
        return naming(results, row.identity.command((row.seed,), row.target, row.config_digest))
    return "nox -s bench"
