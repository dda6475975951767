"""A number in a table that still knows the rows it was made of, so that a page can show its provenance."""

from collections.abc import Iterable
from typing import Self

from reproduce.results.rows import Row


class Cited(str):
    """The text of a cell with what it states: stored rows, or a verdict. Everywhere else it is a text."""

    rows: tuple[Row, ...]
    verdict: object
    """A `Verdict`, or None."""

    def __new__(cls, text: str, rows: Iterable[Row] = (), verdict: object = None) -> Self:
        """Return the text with what it states."""
        made = super().__new__(cls, text)
        made.rows, made.verdict = tuple(rows), verdict
        return made


def rows_in(*cells: str) -> list[Row]:
    """Return the rows that some cells state, each once, in their order."""
    found = [row for cell in cells if isinstance(cell, Cited) for row in cell.rows]
    return list({id(row): row for row in found}.values())
