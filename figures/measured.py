"""Everything measured and timed, as tables; and the README's copies: `python -m figures.measured` writes them anew."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import write_atomically
from jlebm.results import METRICS, TIMINGS, Reported, Timing, check, read_all, read_expected, read_paper, timing
from jlebm.results.rows import read as read_rows
from jlebm.results.tables import escape_markdown, markdown, measured, number

ROOT = Path(__file__).resolve().parents[1]


class Mark(NamedTuple):
    """The two comments of the README between which a table stands."""

    begin: str
    end: str

    @classmethod
    def of(cls, name: str) -> "Mark":
        """Return the marks of one table."""
        return cls(f"<!-- {name}: written by `python -m figures.measured` -->\n", f"<!-- /{name} -->\n")


MEASURED, PERFORMANCE = Mark.of("measured"), Mark.of("performance")
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


def performance(results: Path) -> str:
    """Return the Markdown tables of the benchmark's newest rows: speed beside plain, and how cost grows.

    Raises:
        UserError: a file of the results folder cannot be read, or a row was changed by hand.
    """
    rows = timing.newest(read_rows(results / "measured" / TIMINGS, Timing))
    for row in rows:
        if not row.intact:
            raise UserError(f"{row.where} was changed since it was stored; restore it")
    parts = [markdown(timing.SPEED_HEADER, timing.speed_cells(rows))]
    for sentence in timing.reasons(rows):
        parts.append(f"- missed: {escape_markdown(sentence)}\n")
    parts.append(_beside_the_authors(rows, read_paper(results / "paper.toml")))
    parts.append(markdown(timing.SCALE_HEADER, timing.scale_cells(rows)))
    return "\n".join(filter(None, parts))


def _beside_the_authors(rows: Sequence[Timing], paper: Mapping[str, Reported]) -> str:
    said = []
    for way in ("mcmc", "variational"):
        one = paper.get(f"table5.cifar10.{way}.seconds")
        if one is not None:
            said.append(f"{number(one.value, one.metric)} s ({one.system})")
    extrapolated = [row for row in rows if row.kind == "extrapolated"]
    if not said or not extrapolated:
        return ""
    ours = "; ".join(f"{row.device}: {timing.duration(row.ours)} for {row.setting}" for row in extrapolated)
    return (
        f"The authors report {' and '.join(said)} an iteration of 100 images on a GPU that they do not name. "
        f"Extrapolated from the iteration measured here, nobody waited for it: {ours}.\n"
    )


def draw(results: Path, out: Path) -> list[Path]:
    """Write measured.md and performance.md and return the files.

    Raises:
        UserError: a file of the results folder cannot be read.
    """
    written = []
    for name, text in (("measured.md", table(results)), ("performance.md", performance(results))):

        def put(part: Path, text: str = text) -> None:
            part.write_text(text, encoding="utf-8")

        write_atomically(out / name, put)
        written.append(out / name)
    return written


def update(readme: Path, results: Path) -> None:
    """Put the tables between their marks in the README.

    Raises:
        UserError: the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    for mark, content in ((MEASURED, table(results)), (PERFORMANCE, performance(results))):
        before, begin, rest = text.partition(mark.begin)
        _, end, after = rest.partition(mark.end)
        if not begin or not end:
            raise UserError(f"{readme} has no place for a table, between {mark.begin.strip()} and {mark.end.strip()}")
        text = f"{before}{mark.begin}{content}{mark.end}{after}"
    write_atomically(readme, lambda part: part.write_text(text, encoding="utf-8"))


@exit_on_user_error
def main() -> int:
    """Write the README's tables anew; return the exit code."""
    update(ROOT / "README.md", ROOT / "results")
    return 0


if __name__ == "__main__":
    sys.exit(main())
