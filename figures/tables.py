"""Tables 1 to 5 of the paper and its out-of-distribution results with measured values: Markdown, LaTeX and CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jlebm.files import write_text
from reproduce.results import METRICS, Reported, Verdict, read_all, read_expected, read_paper, verdicts_on
from reproduce.results.cited import Cited
from reproduce.results.rendering import comma_separated, latex, markdown, measured, number

TABLES = ("table1", "table2", "table3", "table4", "table5", "ood")
PRESETS = ("paper", "budget")  # closest to the paper's settings first, then the others by name


def draw(results: Path, out: Path) -> list[Path]:
    """Write every table as .md, .tex and .csv and return the files written.

    Raises:
        UserError: a file of the results folder cannot be read.
    """
    paper = read_paper(results / "paper.toml")
    verdicts = verdicts_on(read_all(results / "measured"), read_expected(results / "expected.toml"), results)
    written = []
    for table in TABLES:
        header, rows = join(table, paper, verdicts)
        for suffix, write in ((".md", markdown), (".tex", latex), (".csv", comma_separated)):
            path, text = out / f"{table}{suffix}", write(header, rows)
            write_text(path, text)
            written.append(path)
    return written


def join(table: str, paper: Mapping[str, Reported], verdicts: Sequence[Verdict]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of one table: one row per system, two columns per dataset and metric.

    A measured value is shown if `expected.toml` names the paper's key for it and the metric is the same; the last
    column has its protocol. Scores that the paper lacks follow below.
    """
    entries = [one for one in paper.values() if one.key.split(".")[0] == table]
    columns = list(dict.fromkeys((one.dataset, one.metric) for one in entries))
    header = ["system"]
    for dataset, metric in columns:
        label = f"{dataset} {METRICS[metric].label}"
        header += [f"{label}, reported", f"{label}, measured here"]
    header.append("protocol of the measured")
    rows = []
    for system in dict.fromkeys(one.system for one in entries):
        cells, protocols = [system], []
        for dataset, metric in columns:
            match = [one for one in entries if (one.system, one.dataset, one.metric) == (system, dataset, metric)]
            cells.append(number(match[0].value, metric, match[0].spread) if match else "-")
            found = _measured(match[0], verdicts) if match else None
            cells.append(_cell(found) if found else "not measured" if match else "-")
            if found:
                one = found.expectation
                protocols.append(f"{one.protocol}, preset {one.label}, {one.trained}, {one.of.name}")
        rows.append([*cells, "; ".join(dict.fromkeys(protocols)) or "-"])
    return header, [*rows, *_other_scores(columns, verdicts)]


def _other_scores(columns: Sequence[tuple[str, str]], verdicts: Sequence[Verdict]) -> list[list[str]]:
    """Return rows for measured scores that the paper does not report, as its model has other layers."""
    systems: dict[tuple[str, str], dict[tuple[str, str], Verdict]] = {}
    for verdict in verdicts:
        one = verdict.expectation
        column = (f"{one.dataset} in, {one.target} out", one.metric)
        if one.source == "out-of-distribution" and not one.paper and verdict.mean is not None and column in columns:
            system = (one.score, f"{one.protocol}, preset {one.label}, {one.trained}, {one.of.name}")
            systems.setdefault(system, {})[column] = verdict
    rows = []
    for (score, protocol), found in systems.items():
        cells = [f"{score}, this project's model"]
        for column in columns:
            cells += ["-", _cell(found[column]) if column in found else "-"]
        rows.append([*cells, protocol])
    return rows


def _measured(reported: Reported, verdicts: Sequence[Verdict]) -> Verdict | None:
    found = [
        verdict
        for verdict in verdicts
        if (verdict.mean is not None or verdict.status == "FAIL")
        and verdict.expectation.paper in (reported.key, reported.same_as or reported.key)
        and verdict.expectation.metric == reported.metric
    ]
    order = {preset: place for place, preset in enumerate(PRESETS)}
    return min(found, key=lambda v: (order.get(v.expectation.label, len(order)), v.expectation.label), default=None)


def _cell(verdict: Verdict) -> str:
    mark = f" ({verdict.status})" if verdict.status in ("DRIFT", "FAIL") else ""
    return Cited(measured(verdict) + mark, verdict=verdict)
