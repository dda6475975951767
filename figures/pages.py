"""Tables of everything measured and timed; `python -m figures.pages` rewrites them in README and docs."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from figures import detection_tables, paper_map, summaries
from figures.common import Drawing
from figures.registry import FIGURES
from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import write_text
from reproduce.results import (
    METRICS,
    TIMINGS,
    Reported,
    Timing,
    Verdict,
    check,
    comparison,
    read_all,
    read_expected,
    read_paper,
    timing,
)
from reproduce.results.rendering import escape_markdown, judged, markdown, measured, number
from reproduce.results.rows import read as read_rows
from reproduce.results.rows import refuse_changed

ROOT = Path(__file__).resolve().parents[1]


class Mark(NamedTuple):
    """Comments before and after a table in a page."""

    begin: str
    end: str

    @classmethod
    def of(cls, name: str) -> "Mark":
        """Return the marks of a table."""
        return cls(f"<!-- {name}: written by `python -m figures.pages` -->\n", f"<!-- /{name} -->\n")


PAGES = {
    "README.md": ("priors", "paper"),
    "results/README.md": ("measured",),
    "docs/results.md": ("headline", "layers"),
    "docs/systems.md": ("systems",),
    "docs/two_stage.md": ("variations",),
    "docs/detection.md": ("anomalies", "anomalies-80-20", "out-of-distribution"),
    "docs/performance.md": ("performance",),
    "docs/figures.md": ("figures",),
}
"""Tables of each page, by the names of `texts`."""
FIGURES_HEADER = ("command", "draws", "from", "of the models")
HEADER = ("data, preset", "learning", "metric", "of", "measured", "held to", "verdict")


def texts(results: Path) -> dict[str, str]:
    """Return all Markdown tables of measured and timed rows by name.

    Raises:
        UserError: a file of the results folder cannot be read, or a row was changed by hand.
    """
    stored, paper = read_all(results / "measured"), read_paper(results / "paper.toml")
    refuse_changed(stored)
    verdicts = check(stored, read_expected(results / "expected.toml"))
    rows = [row for row in stored if row.complete]
    headline, systems = summaries.headline(rows, verdicts), summaries.systems(stored, paper)
    digits, anomalies = detection_tables.anomalies(rows, paper)
    outside = detection_tables.out_of_distribution(rows, paper)
    timings = timing.newest(read_rows(results / "measured" / TIMINGS, Timing))
    shown = paper_map.Shown(headline, anomalies, outside, systems, verdicts, timings, results)
    tables = {
        "priors": (summaries.PRIORS_HEADER, summaries.priors(rows)),
        "headline": (summaries.HEADLINE_HEADER, headline),
        "systems": (comparison.HEADER, systems),
        "variations": (summaries.VARIATIONS_HEADER, summaries.variations(rows)),
        "layers": (summaries.LAYERS_HEADER, summaries.layers(rows)),
        "anomalies": (digits, anomalies),
        "anomalies-80-20": detection_tables.anomalies_of_split(rows, paper),
        "out-of-distribution": (detection_tables.OUTSIDE_HEADER, outside),
        "measured": (HEADER, _lines(verdicts)),
        "figures": (FIGURES_HEADER, [_figure(*figure[:2]) for figure in FIGURES]),
    }
    written = {name: markdown(header, lines) for name, (header, lines) in tables.items()}
    return written | {"performance": performance(results), "paper": paper_map.table(shown, paper)}


def _figure(command: str, drawing: Drawing) -> tuple[str, ...]:
    """Return the cells of one kind of figure, in the order of `FIGURES_HEADER`."""
    return f"python -m {command}", drawing.title, f"{drawing.kind}.npz", ", ".join(drawing.models)


def _lines(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    """Return a line for each mean over seeds, with its expectation."""
    lines = []
    for verdict in verdicts:
        one = verdict.expectation
        if verdict.mean is None:
            continue
        held = "-" if one.value is None else number(one.value, one.metric, one.tolerance)
        label = METRICS[one.metric].label
        cells = (f"{one.dataset}, {one.label}", one.learning, label, one.of.name, measured(verdict), held)
        lines.append((*cells, judged(verdict)))
    return lines


def performance(results: Path) -> str:
    """Return the Markdown tables of the benchmark's newest rows: speed against plain, and how cost grows.

    Raises:
        UserError: a file of the results folder cannot be read, or a row was changed by hand.
    """
    rows = timing.newest(read_rows(results / "measured" / TIMINGS, Timing))
    refuse_changed(rows)
    parts = [markdown(timing.SPEED_HEADER, timing.speed_cells(rows, timing.read_awaited(results)))]
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
        f"The authors report {' and '.join(said)} per iteration of 100 images on an unnamed GPU. "
        f"Extrapolated from one iteration; not run: {ours}.\n"
    )


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


@exit_on_user_error
def main() -> int:
    """Rewrite the tables of all pages; return the exit code."""
    tables = texts(ROOT / "results")
    for page, names in PAGES.items():
        update(ROOT / page, {name: tables[name] for name in names})
    return 0


if __name__ == "__main__":
    sys.exit(main())
