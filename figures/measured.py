"""Everything measured, as one table; and the README's copy of it: `python -m figures.measured` writes it anew."""

import sys
from pathlib import Path

from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import write_atomically
from jlebm.results import METRICS, check, read_all, read_expected
from jlebm.results.tables import markdown, measured, number

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- measured: written by `python -m figures.measured` -->\n", "<!-- /measured -->\n"
HEADER = ("data, preset", "learning", "metric", "of", "measured", "held to", "verdict")


def table(results: Path) -> str:
    """Return the Markdown table of all rows, a line for each mean over seeds, with what it is held to.

    Raises:
        UserError: a file of the results folder cannot be read.
    """
    rows = []
    for verdict in check(read_all(results / "measured"), read_expected(results / "expected.toml")):
        one = verdict.expectation
        if verdict.mean is None:
            continue
        held = "-" if one.value is None else number(one.value, one.metric, one.tolerance)
        label = METRICS[one.metric].label
        cells = (f"{one.dataset}, {one.preset}", one.learning, label, one.source, measured(verdict), held)
        rows.append((*cells, verdict.status))
    return markdown(HEADER, rows)


def draw(results: Path, out: Path) -> Path:
    """Write the table as measured.md and return the file.

    Raises:
        UserError: a file of the results folder cannot be read.
    """
    path, text = out / "measured.md", table(results)
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def update(readme: Path, results: Path) -> None:
    """Put the table between its two marks in the README.

    Raises:
        UserError: the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} has no place for the table, between {BEGIN.strip()} and {END.strip()}")
    whole = f"{before}{BEGIN}{table(results)}{END}{after}"
    write_atomically(readme, lambda part: part.write_text(whole, encoding="utf-8"))


@exit_on_user_error
def main() -> int:
    """Write the README's table anew; return the exit code."""
    update(ROOT / "README.md", ROOT / "results")
    return 0


if __name__ == "__main__":
    sys.exit(main())
