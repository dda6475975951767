"""Tables of everything measured and timed; `python -m figures.pages` rewrites them in README and docs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from figures.page_tables import PAGES, TABLES
from figures.stored import Stored
from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import write_text
from reproduce.terminal.parsing import parse

ROOT = Path(__file__).resolve().parents[1]


class Mark(NamedTuple):
    """Comments before and after a table in a page."""

    begin: str
    end: str

    @classmethod
    def of(cls, name: str) -> "Mark":
        """Return the marks of a table."""
        return cls(f"<!-- {name}: written by `python -m figures.pages` -->\n", f"<!-- /{name} -->\n")


def texts(results: Path) -> dict[str, str]:
    """Return the Markdown of every table by name, made from the stored rows.

    Raises:
        UserError: a file of the results folder cannot be read, or a row was changed by hand.
    """
    stored = Stored.read(results)
    return {table.name: table.text(stored) for table in TABLES}


def draw(results: Path, out: Path) -> list[Path]:
    """Write each table as NAME.md and return the files.

    Raises:
        UserError: a file of the results folder cannot be read, or a row was changed by hand.
    """
    written = []
    for name, text in texts(results).items():
        path = out / f"{name}.md"
        write_text(path, text)
        written.append(path)
    return written


def filled(text: str, tables: Mapping[str, str], page: Path | str) -> str:
    """Return a page's text with tables between the marks of their names.

    Raises:
        UserError: the page lacks the marks.
    """
    for name, content in tables.items():
        mark = Mark.of(name)
        before, begin, rest = text.partition(mark.begin)
        _, end, after = rest.partition(mark.end)
        if not begin or not end:
            raise UserError(f"{page} has no place for a table, between {mark.begin.strip()} and {mark.end.strip()}")
        text = f"{before}{mark.begin}{content}{mark.end}{after}"
    return text


def update(page: Path, tables: Mapping[str, str]) -> None:
    """Put tables between the marks of their names in a page.

    Raises:
        UserError: the marks are not there.
    """
    write_text(page, filled(page.read_text(encoding="utf-8"), tables, page))


@dataclass(frozen=True)
class Arguments:
    """Rewrite the tables in README and docs."""

    root: Path = ROOT
    """The checkout whose pages are rewritten, from the rows in its results/."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the tables of all pages; return the exit code."""
    root = parse(Arguments, argv, __doc__).root
    tables = texts(root / "results")
    for page, names in PAGES.items():
        update(root / page, {name: tables[name] for name in names})
    return 0


if __name__ == "__main__":
    sys.exit(main())
