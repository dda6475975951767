"""README tables of anomaly and out-of-distribution detection, with the papers' values."""

import re
from collections.abc import Mapping, Sequence

from figures.summaries import PRESET, Cells, cell, mean_of
from reproduce.results import Measurement, Reported
from reproduce.results.identity import Of
from reproduce.results.rendering import number
from reproduce.results.timing import NOT_MEASURED

ANOMALY_SCORES = (("L>0", "variational"), ("E", "variational"), ("L>0", "gaussian"))
OUTSIDE_HEADER = ("data", "score", "AUROC here", "AUROC reported", "seeds", "images")


def anomalies(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> tuple[Cells, list[Cells]]:
    """Return the header and a line for each held-out digit: AUPRC of each score here and of the paper's systems."""
    kept = [row for row in rows if (row.dataset, row.label, row.source) == ("mnist", PRESET, "anomaly")]
    reported = {}
    for one in paper.values():
        if match := re.fullmatch(r"table4\.mnist-(\d)\..*", one.key):
            reported[int(match[1]), one.system] = one
    names = sorted({system for _, system in reported}, key=lambda name: (name != "ours", name))
    lines = []
    for digit in sorted({int(row.target) for row in kept} | {digit for digit, _ in reported}):
        found = [
            mean_of(kept, "auprc", Of("anomaly", "", str(digit), score), learning=name)
            for score, name in ANOMALY_SCORES
        ]
        here = [NOT_MEASURED if mean is None else cell(mean) for mean in found]
        counts = [(str(len(mean.seeds)), str(mean.row.images)) for mean in found if mean] or [("-", "-")]
        theirs = [reported.get((digit, name)) for name in names]
        told = [number(one.value, one.metric, one.spread) if one else "-" for one in theirs]
        seeds, images = (" / ".join(dict.fromkeys(each)) for each in zip(*counts, strict=True))
        lines.append((str(digit), *here, seeds, images, *told))
    scores = [f"{score}, here" + ", Gaussian twin" * (name == "gaussian") for score, name in ANOMALY_SCORES]
    return ("digit", *scores, "seeds", "images", *(f"{name}, reported" for name in names)), lines


def out_of_distribution(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> list[Cells]:
    """Return a line for each score measured here or reported, in the order of `OUTSIDE_HEADER`.

    No line has both: another hierarchy has other layers, so its L>k is another score.
    """
    asked_of = (PRESET, "auroc", "out-of-distribution")
    kept = [row for row in rows if (row.label, row.metric, row.source) == asked_of]
    scores: dict[str, dict[tuple[str, Of, str], None]] = {}
    for row in kept:
        scores.setdefault(f"{row.dataset} in, {row.target} out", {})[row.dataset, row.of, row.learning] = None
    for one in paper.values():
        if one.metric == "auroc":
            scores.setdefault(one.dataset, {})
    lines = []
    for pair, asked in scores.items():
        for dataset, of, learning in sorted(asked):
            mean = mean_of(kept, "auroc", of, dataset=dataset, learning=learning)
            assert mean is not None  # there is a row of it
            score = of.score + ", Gaussian twin" * (learning == "gaussian")
            lines.append((pair, score, cell(mean), "-", str(len(mean.seeds)), str(mean.row.images)))
        if not asked:
            lines.append((pair, "-", NOT_MEASURED, "-", "-", "-"))
        for one in (one for one in paper.values() if (one.metric, one.dataset) == ("auroc", pair)):
            told = number(one.value, one.metric, one.spread)
            lines.append((pair, f"{one.system} ({one.model})", "-", told, "-", "-"))
    return lines
