"""Verdicts and comparisons as tables: on a terminal, in Markdown, in LaTeX."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jlebm.text import printable
from reproduce.results.expectation import quantity
from reproduce.results.metrics import METRICS
from reproduce.results.paper import Reported
from reproduce.results.verdicts import STATUSES, Status, Verdict

Note = tuple[str, str, str]  # status, what is said, command
Format = Literal["terminal", "markdown", "latex"]
HEADER = ("metric", "source", "paper reports", "expected here", "measured", "verdict")
STYLES = {
    "PASS": "green",
    "DRIFT": "yellow",
    "FAIL": "bold red",
    "NO EXPECTATION": "cyan",
    "TOO FEW SEEDS": "dim",
    "STALE": "dim",
    "NEVER RUN": "dim",
}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def render(
    verdicts: Sequence[Verdict],
    paper: Mapping[str, Reported],
    format: Format,
    *,
    color: bool = False,
    width: int = 200,
    notes: Collection[Status] = STATUSES,
) -> str:
    """Return the tables of metric, source, paper, expected, measured and verdict, one for each protocol and preset.

    Below each are reasons and commands for what did not pass, and remarks on what did. A paper's number of another
    metric is marked "(not comparable)".

    Args:
        verdicts: of `check`.
        paper: of `read_paper`.
        format: "terminal", "markdown" or "latex".
        color: whether the terminal output has colours: PASS green, DRIFT yellow, FAIL red, to be run dim.
        width: of the terminal, in characters.
        notes: statuses whose reasons and commands are listed below the table.
    """
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        one = verdict.expectation
        title = ", ".join(filter(None, (one.dataset, f"preset {one.label}", one.trained, f"protocol {one.protocol}")))
        groups.setdefault(title, []).append(verdict)
    parts = []
    for title, group in groups.items():
        rows = [_row(verdict, paper) for verdict in group]
        said = _notes([one for one in group if one.status in notes])
        if format == "terminal":
            parts.append(_terminal(title, rows, group, said, color, width))
        elif format == "markdown":
            lines = [f"- {escape_markdown(text)}" + (f" Run {_code(run)}" if run else "") for _, text, run in said]
            parts.append("\n".join([f"**{escape_markdown(title)}**", "", markdown(HEADER, rows), *lines]) + "\n")
        else:
            lines = [
                escape_latex(text) + (rf" Run \texttt{{{escape_latex(run)}}}" if run else "") + r"\par"
                for _, text, run in said
            ]
            parts.append("\n".join([rf"\paragraph{{{escape_latex(title)}}}", latex(HEADER, rows), *lines]) + "\n")
    return "\n".join(parts)


def number(value: float, metric: str, spread: float | None = None) -> str:
    """Format a value with the decimals of its metric: "0.0520 ± 0.0011"."""
    decimals = METRICS[metric].decimals
    return f"{value:.{decimals}f}" + (f" ± {spread:.{decimals}f}" if spread is not None else "")


def reported(one: Reported | None, metric: str) -> str:
    """Format what the paper reports beside a value of a metric, marked where it is of another; "-" without it."""
    if one is None:
        return "-"
    said = number(one.value, one.metric, one.spread)
    return said if one.metric == metric else f"{METRICS[one.metric].label} {said} (not comparable)"


def measured(verdict: Verdict) -> str:
    """Format a verdict's mean, spread, seeds and images: "66.51 ± 0.42, 3 seeds, 50000 images"."""
    if verdict.mean is None:
        return "-"
    shown = number(verdict.mean, verdict.expectation.metric, verdict.spread)
    return f"{shown}, {verdict.count} seed{'s' * (verdict.count != 1)}, {verdict.images} images"


def judged(verdict: Verdict) -> str:
    """Format the verdict on a measured number, also without an expectation."""
    return "no expectation yet" if verdict.status == "NO EXPECTATION" else verdict.status


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every cell is plain text and is escaped."""
    lines = [header, ["---"] * len(header), *([escape_markdown(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a LaTeX tabular; every cell is plain text and is escaped."""
    lines = [" & ".join(map(escape_latex, line)) + r" \\" for line in (header, *rows)]
    columns = "l" * len(header)
    body = "\n".join([lines[0], r"\hline", *lines[1:]])
    return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"


def comma_separated(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as CSV (RFC 4180); every cell is plain text, quoted where needed."""
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue()


def escape_markdown(text: str) -> str:
    """Escape Markdown's markup and the end of a cell."""
    return re.sub(r"([\\|*`<\[\]])", r"\\\1", _one_line(text))


def escape_latex(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _code(command: str) -> str:
    fence = "``" if "`" in command else "`"
    return f"{fence}{printable(command)}{fence}"


def _row(verdict: Verdict, paper: Mapping[str, Reported]) -> list[str]:
    one = verdict.expectation
    wanted = "-"
    if one.value is not None and one.tolerance is not None:
        wanted = number(one.value, one.metric, one.tolerance)
    beside = reported(paper.get(one.paper), one.metric)
    return [METRICS[one.metric].label, one.of.name, beside, wanted, measured(verdict), verdict.status]


def _notes(group: Sequence[Verdict]) -> list[Note]:
    noted: dict[Note, list[str]] = {}
    for one in group:
        if one.reason:
            noted.setdefault((one.status, one.reason, one.command), []).append(quantity(one.expectation))
    # What has one reason and one command is said once.
    return [(status, f"{status} {', '.join(what)}: {reason}.", run) for (status, reason, run), what in noted.items()]


def _terminal(
    title: str, rows: list[list[str]], group: Sequence[Verdict], said: Sequence[Note], color: bool, width: int
) -> str:
    table = Table(title=Text(printable(title)), title_justify="left", title_style="bold")
    for name in HEADER:
        table.add_column(name, no_wrap=name in ("verdict", "metric"))
    for row, verdict in zip(rows, group, strict=True):
        style = STYLES[verdict.status]
        cells = [Text(printable(cell), style="dim" if verdict.mean is None else "") for cell in row[:-1]]
        table.add_row(*cells, Text(row[-1], style=style))
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=color, color_system="standard" if color else None, width=width, legacy_windows=False
    )
    console.print(table)
    for status, text, run in said:
        console.print(Text(printable(text), style=STYLES[status]))
        if run:  # on its own line and never wrapped, so that it can be copied
            console.print(Text(f"    {printable(run)}", style="dim"), soft_wrap=True)
    return out.getvalue()
