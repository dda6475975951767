"""The paper's Table 2 beside the values measured here, one line per system, at one preset."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from reproduce.results.cited import Cited
from reproduce.results.expectation import condition
from reproduce.results.identity import TABLE, Identity
from reproduce.results.measurement import Measurement
from reproduce.results.metrics import METRICS
from reproduce.results.paper import Reported
from reproduce.results.rendering import number
from reproduce.results.rows import refuse_changed
from reproduce.results.table_lines import SYSTEMS, System
from reproduce.results.timing import duration
from reproduce.results.verdicts import judged_by, newest_alike, summary

HEADER = ("system", "paper reports", "measured here", "training", "parameters", "sampling 1,000 images", "classes")
SHOWN = ("fid768", "fid", "is", "bits_per_dimension")
REPORTED = ("is", "fid")
NOT_RUN = "NEVER RUN"
PIXELS = "pixels"
CURVE = "and training.png of its run shows its curve"


def comparison(
    measured: Sequence[Measurement], paper: Mapping[str, Reported], dataset: str, preset: str
) -> list[tuple[str, ...]]:
    """Return the cells of the table, in the order of `HEADER`.

    Every value is a mean over the newest row of each seed, among rows that may be averaged (`verdicts.alike`); of
    several such groups, the one measured last.

    Raises:
        UserError: a row was changed since it was stored.
    """
    nothing, lines = _independent_pixels(measured, dataset, preset), []
    for system in SYSTEMS:
        rows = _rows_of(system, measured, dataset, preset)
        newest = {metric: newest_alike([row for row in rows if row.metric == metric]) for metric in METRICS}
        timed = newest["fid768"] or newest["parameters"]
        said = [_value(newest[metric]) for metric in SHOWN if newest[metric]]
        if system.name != PIXELS and _no_nearer(newest["fid768"], nothing):
            said.append(f"did not learn: its images are no nearer than independent pixels, {CURVE}")
        lines.append(
            (
                system.title,
                _reported(system, paper),
                Cited("; ".join(said), (row for metric in SHOWN for row in newest[metric]))
                if said
                else ("not measured" if timed else NOT_RUN),
                Cited(_training(newest["parameters"] or timed), newest["parameters"] or timed),
                Cited(f"{newest['parameters'][0].value:,.0f}" if newest["parameters"] else "-", newest["parameters"]),
                Cited(_sampling(timed), timed),
                "class-conditional" if system.conditional else "unconditional",
            )
        )
    return lines


def mean_of_each(measured: Sequence[Measurement], dataset: str, preset: str, metric: str) -> dict[str, float]:
    """Return the mean of one metric for each system that has rows of it, by the system's name.

    They can be compared: where systems were judged in several ways, only those in the most usual one are told.

    Raises:
        UserError: a row was changed since it was stored.
    """
    newest = {
        system.name: newest_alike([row for row in _rows_of(system, measured, dataset, preset) if row.metric == metric])
        for system in SYSTEMS
    }
    ways = Counter(judged_by(rows[0]) for rows in newest.values() if rows)
    usual = max(ways, key=ways.__getitem__, default=None)
    return {name: _mean(rows) for name, rows in newest.items() if rows and judged_by(rows[0]) == usual}


def not_run(measured: Sequence[Measurement], dataset: str, preset: str) -> list[tuple[str, str]]:
    """Return the systems without a row and the command that makes one."""
    missing = []
    for system in SYSTEMS:
        asked = (dataset, preset, system.learning, system.source)
        if not any((row.dataset, row.label, row.learning, row.of.name) == asked for row in measured):
            recipe, model = ("cifar10", "two-stage") if system.learning == "two-stage" else (TABLE, system.name)
            one = Identity(recipe, model, system.learning, dataset, preset)
            missing.append((system.title, one.command()))
    return missing


def sources(paper: Mapping[str, Reported]) -> list[str]:
    """Return the sources of the reported numbers."""
    return list(dict.fromkeys(one.source for system in SYSTEMS for one in _entries(system, paper)))


def _rows_of(system: System, measured: Sequence[Measurement], dataset: str, preset: str) -> list[Measurement]:
    asked, sources = (dataset, preset, system.learning), (system.source, "held-out")
    rows = [row for row in measured if (row.dataset, row.label, row.learning) == asked and row.source in sources]
    refuse_changed(rows)
    return rows


def _independent_pixels(measured: Sequence[Measurement], dataset: str, preset: str) -> list[Measurement]:
    """Return the rows of independent pixels, which every system should beat."""
    asked = (dataset, preset, PIXELS, "fid768")
    rows = [row for row in measured if (row.dataset, row.label, row.learning, row.metric) == asked]
    refuse_changed(rows)
    return newest_alike(rows)


def _no_nearer(rows: Sequence[Measurement], nothing: Sequence[Measurement]) -> bool:
    """Whether a system's images are no nearer to the data than independent pixels that were judged in the same way."""
    comparable = bool(rows and nothing) and judged_by(rows[0]) == judged_by(nothing[0])
    return comparable and _mean(rows) >= _mean(nothing)


def _mean(rows: Sequence[Measurement]) -> float:
    return statistics.fmean(row.value for row in rows)


def _entries(system: System, paper: Mapping[str, Reported]) -> list[Reported]:
    keys = [f"table2.cifar10.{system.paper}.{metric}" for metric in REPORTED]
    return [paper[key] for key in keys if key in paper]


def _reported(system: System, paper: Mapping[str, Reported]) -> str:
    said = [f"{METRICS[one.metric].label} {number(one.value, one.metric)}" for one in _entries(system, paper)]
    return ", ".join(said) or "-"


def _value(rows: Sequence[Measurement]) -> str:
    first, (average, spread, count) = rows[0], summary(rows)
    seeds = f"{count} seed{'s' * (count != 1)}"
    by = [seeds, f"{first.images} images", *filter(None, [condition(first, "extractor")])]
    if first.metric == "bits_per_dimension":
        by[1] = f"{first.images} of {first.reference.partition(',')[0]}, {first.bits} bits a colour"
    early = "" if first.complete else f", ended by the clock at step {min(row.steps for row in rows)}"
    mean = number(average, first.metric, spread)
    return f"{METRICS[first.metric].label} {mean} ({', '.join(by)}{early})"


def _training(rows: Sequence[Measurement]) -> str:
    seconds = [row.wall_seconds["train"] for row in rows if "train" in row.wall_seconds]
    return f"{duration(statistics.fmean(seconds))}, {rows[0].device}" if seconds else "-"


def _sampling(rows: Sequence[Measurement]) -> str:
    seconds = [1000 * row.wall_seconds["sample"] / row.images for row in rows if "sample" in row.wall_seconds]
    return duration(statistics.fmean(seconds)) if seconds else "-"
