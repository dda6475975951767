"""What a page is made of: stored rows with their verdicts, and artifacts; of all results, or of one run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.common import Artifact, header_of, stored_rows
from figures.registry import FIGURES, Figure
from jlebm.errors import UserError
from reproduce.results import (
    TIMINGS,
    Measurement,
    Reported,
    Timing,
    Verdict,
    expected_of,
    paper_of,
    read_artifact,
    timing,
    verdicts_on,
)
from reproduce.results.expectation import question
from reproduce.results.rows import read as read_rows
from reproduce.results.verdicts import alike, newest_of_each_seed, summary


@dataclass(frozen=True)
class Judged:
    """A verdict with the rows that its mean is of."""

    verdict: Verdict
    rows: tuple[Measurement, ...]


@dataclass(frozen=True)
class Shown:
    """An artifact, with the kind of figure that shows it."""

    figure: Figure
    artifact: Artifact


@dataclass(frozen=True)
class Contents:
    """Everything that a page states.

    Attributes:
        title: what it is of.
        results: the folder of the artifacts.
        rows: the measured rows that are shown, each once.
        judged: the verdicts about these rows, and of what was never run.
        timings: the newest rows of the benchmark.
        awaited: lines of the benchmark that a GPU has.
        paper: what the papers report.
        artifacts: the figures.
        golden: files of the curves that tiny runs must match.
        run: the name of the run's folder; "" where the page is of all results.
    """

    title: str
    results: Path
    rows: tuple[Measurement, ...]
    judged: tuple[Judged, ...]
    timings: tuple[Timing, ...]
    awaited: tuple[timing.Awaited, ...]
    paper: Mapping[str, Reported]
    artifacts: tuple[Shown, ...]
    golden: tuple[Path, ...] = ()
    run: str = ""


def all_results(results: Path) -> Contents:
    """Return everything that a results folder holds.

    Raises:
        UserError: one of its files cannot be read.
    """
    rows = stored_rows(results / "measured")
    return Contents(
        "All results",
        results,
        rows,
        tuple(_judged(rows, results)),
        tuple(timing.newest(read_rows(results / "measured" / TIMINGS, Timing))),
        tuple(timing.read_awaited(results)),
        paper_of(results),
        tuple(Shown(figure, one) for figure in FIGURES for one in figure.drawing.stored(results)),
        tuple(sorted((results / "golden").glob("*.json"))),
    )


def of_run(folder: Path, results: Path) -> Contents:
    """Return the rows and pictures of one run: of its configuration and seed, and of samples drawn from its weights.

    Raises:
        UserError: it is not the folder of a run, or a file cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.json; give one, as runs/NAME")
    header = header_of(folder)
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    artifacts = [Shown(figure, one) for figure in FIGURES for place in places for one in figure.drawing.lying_in(place)]
    stored_arrays = [one.artifact.path(results) for one in artifacts]
    stored_arrays += sorted(folder.glob("scores*.npz"))  # of a detector: no figure, but they name its rows
    made = [read_artifact(path, (), ())[1] for path in stored_arrays]
    trained = {(str(one["config_digest"]), one["seed"]) for one in made} | {(header["digest"], header["seed"])}
    trained |= {(str(one["twin_digest"]), one["seed"]) for one in made if "twin_digest" in one}
    stored = stored_rows(results / "measured")
    rows = tuple(row for row in stored if (row.config_digest, row.seed) in trained)
    ours, asked = {id(row) for row in rows}, {question(row) for row in rows}
    beside = [row for row in stored if question(row) in asked]  # each question is judged by itself
    judged = [one for one in _judged(beside, results, asked) if ours & {id(row) for row in one.rows}]
    return Contents(
        folder.name, results, rows, tuple(judged), (), (), paper_of(results), tuple(artifacts), run=folder.name
    )


def provenance_of(shown: Shown, results: Path) -> dict[str, Any]:
    """Return the run that made an artifact, as the artifact says it.

    Raises:
        UserError: it is damaged.
    """
    return read_artifact(shown.artifact.path(results), (), ())[1]


def _judged(
    rows: Sequence[Measurement], results: Path, asked: Collection[tuple[object, ...]] | None = None
) -> list[Judged]:
    """Return the verdicts with their rows; where some are `asked`, those on expectations of these questions alone."""
    expected = expected_of(results)
    if asked is not None:
        expected = [one for one in expected if question(one) in asked]
    groups: dict[tuple[object, ...], dict[tuple[object, ...], list[Measurement]]] = {}
    for row in rows:
        groups.setdefault(question(row), {}).setdefault(alike(row), []).append(row)
    return [
        Judged(one, _behind(one, list(groups.get(question(one.expectation), {}).values())))
        for one in verdicts_on(rows, expected, results)
    ]


def _behind(verdict: Verdict, groups: Sequence[Sequence[Measurement]]) -> tuple[Measurement, ...]:
    """Return the rows of a verdict's mean: of those that answer its question and may be averaged, the ones with it."""
    for rows in groups if verdict.mean is not None else ():
        latest = newest_of_each_seed(rows)
        if (*summary(latest), latest[0].images) == (verdict.mean, verdict.spread, verdict.count, verdict.images):
            return tuple(latest)
    return ()
