"""Verdicts as flat records, for machines: the keys of `check --json` and the columns of `check --table FILE.csv`."""

from collections.abc import Mapping, Sequence
from typing import Any

from reproduce.results.identity import options
from reproduce.results.overview import counts, for_want_of_a_gpu, queue
from reproduce.results.paper import Reported
from reproduce.results.rendering import comma_separated
from reproduce.results.verdicts import Verdict

KEYS = {
    "dataset": "the dataset",
    "preset": "the size of the recipe",
    "variation": "options beside the preset, as they are typed",
    "model": "two-layer, one-layer, two-stage or ladder; the system of the table, or the prior of the ladder of priors",
    "learning": "the learning scheme, or the system of the table",
    "protocol": "the recipe with its version",
    "metric": "the metric",
    "source": "whose samples",
    "layer": "of one layer alone: its name",
    "target": "of a detection: what is detected",
    "score": "of a detection: by which score",
    "verdict": "PASS, DRIFT, FAIL, NO EXPECTATION, TOO FEW SEEDS, STALE or NEVER RUN",
    "measured": "mean over seeds; none without rows",
    "spread": "sample standard deviation over seeds; none for fewer than two",
    "seeds": "how many seeds",
    "images": "how many images each value is over",
    "expected": "expected value; none without an expectation",
    "tolerance": "up to which deviation it is a PASS",
    "fail_beyond": "beyond which deviation it is a FAIL",
    "paper_metric": "the metric that the paper reports",
    "paper": "the paper's value",
    "reason": "a clause, empty for a plain PASS",
    "command": "what would measure or settle it",
}
"""Keys of a record and their meaning."""


def record(verdict: Verdict, paper: Mapping[str, Reported]) -> dict[str, Any]:
    """Return a verdict's record, with the keys of `KEYS` in their order."""
    one, reported = verdict.expectation, paper.get(verdict.expectation.paper)
    own = ("dataset", "preset", "model", "learning", "protocol", "metric", "source", "layer", "target", "score")
    values = {name: getattr(one, name) for name in own} | {
        "variation": " ".join(options(one.variation)),
        "verdict": verdict.status,
        "measured": verdict.mean,
        "spread": verdict.spread,
        "seeds": verdict.count,
        "images": verdict.images,
        "expected": one.value,
        "tolerance": one.tolerance,
        "fail_beyond": one.fail_beyond,
        "paper_metric": None if reported is None else reported.metric,
        "paper": None if reported is None else reported.value,
        "reason": verdict.reason,
        "command": verdict.command,
    }
    return {key: values[key] for key in KEYS}


def answer(
    verdicts: Sequence[Verdict], paper: Mapping[str, Reported], rows: int, faults: Sequence[str]
) -> dict[str, Any]:
    """Return all of `check --json`: rows, counts, never_run_for_want_of_a_gpu, verdicts, queue, faults.

    Args:
        verdicts: of `check`.
        paper: of `read_paper`.
        rows: number of stored rows.
        faults: a sentence for each damaged row of the benchmark.
    """
    return {
        "rows": rows,
        "counts": counts(verdicts),
        "never_run_for_want_of_a_gpu": for_want_of_a_gpu(verdicts),
        "verdicts": [record(verdict, paper) for verdict in verdicts],
        "queue": [
            {
                "recipe": one.recipe,
                "command": one.command,
                "needs": one.needs,
                "needs_gpu": one.needs_gpu,
                "results": len(one.waiting),
            }
            for one in queue(verdicts)
        ],
        "faults": list(faults),
    }


def as_csv(verdicts: Sequence[Verdict], paper: Mapping[str, Reported]) -> str:
    """Return the records as CSV (RFC 4180), one line per verdict, numbers in full; a missing value is empty."""
    values = [record(verdict, paper).values() for verdict in verdicts]
    lines = [["" if value is None else str(value) for value in line] for line in values]
    return comma_separated(list(KEYS), lines)
