"""Everything that a results folder holds for tables, read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reproduce.results import (
    TIMINGS,
    Measurement,
    Reported,
    Timing,
    Verdict,
    read_all,
    read_expected,
    read_paper,
    verdicts_on,
)
from reproduce.results.rows import read as read_rows
from reproduce.results.rows import refuse_changed
from reproduce.results.timing import Awaited, newest, read_awaited


@dataclass(frozen=True)
class Stored:
    """What tables are made from.

    Attributes:
        results: the folder.
        rows: all measured rows.
        verdicts: on their means.
        paper: what the papers report, by key.
        timings: the newest rows of the benchmark.
        awaited: lines of the benchmark that need a GPU.
    """

    results: Path
    rows: Sequence[Measurement]
    verdicts: Sequence[Verdict]
    paper: Mapping[str, Reported]
    timings: Sequence[Timing]
    awaited: Sequence[Awaited]

    @classmethod
    def read(cls, results: Path) -> Self:
        """Read a results folder.

        Raises:
            UserError: a file cannot be read, or a row was changed by hand.
        """
        rows, paper = read_all(results / "measured"), read_paper(results / "paper.toml")
        awaited, timings = read_awaited(results), newest(read_rows(results / "measured" / TIMINGS, Timing))
        refuse_changed([*rows, *timings])
        verdicts = verdicts_on(rows, read_expected(results / "expected.toml"), results)
        return cls(results, rows, verdicts, paper, timings, awaited)

    @property
    def complete(self) -> list[Measurement]:
        """Rows of trainings that ran to their end."""
        return [row for row in self.rows if row.complete]
