"""Cells of tables that keep the rows behind them, so that a page can show their provenance."""

from collections.abc import Iterable
from typing import Self

from reproduce.results.rows import Row

Cells = tuple[str, ...]
"""A line of a table."""


class Cited(str):
    """Text of a cell with the stored rows or the verdict behind it."""

    rows: tuple[Row, ...]
    verdict: object
    """A `Verdict`, or None."""

    def __new__(cls, text: str, rows: Iterable[Row] = (), verdict: object = None) -> Self:
        """Return the text with its rows and verdict."""
        made = super().__new__(cls, text)
        made.rows, made.verdict = tuple(rows), verdict
        return made
