"""README tables of anomaly and out-of-distribution detection, with the papers' values."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from figures.means import Mean, cell, mean_of
from figures.summaries import PRESET
from reproduce.results import Measurement, Reported
from reproduce.results.anomaly_counts import chance, least_possible
from reproduce.results.anomaly_names import EIGHTY_TWENTY, ENERGIES, LITERAL, REPORTED
from reproduce.results.cited import Cells
from reproduce.results.identity import Of
from reproduce.results.rendering import number
from reproduce.results.timing import NOT_MEASURED

ANOMALY_SCORES = ((LITERAL, "variational"), (ENERGIES, "variational"), (LITERAL, "gaussian"))
SIZES = ("tiny", "cpu", "long")  # from small to large
OUTSIDE_HEADER = ("data", "score", "AUROC here", "AUROC reported", "seeds", "images")


class OfSplit(NamedTuple):
    """AUPRC of one model, size and score on the 80/20 test set."""

    model: str
    learning: str
    size: str
    score: str
    means: dict[int, Mean | None]
    """By held-out digit."""

    @property
    def seeds(self) -> str:
        """The numbers of seeds behind the means, as a cell."""
        return " / ".join(dict.fromkeys(mean.counts[0] for mean in self.means.values() if mean))


class Outside(NamedTuple):
    """AUROC of one score of a ladder or its twin."""

    size: str
    dataset: str
    of: Of
    learning: str
    mean: Mean


def anomaly_means(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> dict[int, list[Mean | None]]:
    """Return the mean AUPRC of each of `ANOMALY_SCORES`, by held-out digit that was measured or reported."""
    kept = [row for row in rows if (row.dataset, row.label, row.source) == ("mnist", PRESET, "anomaly")]
    return {
        digit: [
            mean_of(kept, "auprc", Of("anomaly", "", str(digit), score), learning=name)
            for score, name in ANOMALY_SCORES
        ]
        for digit in sorted({int(row.target) for row in kept} | {digit for digit, _ in _table4(paper)})
    }


def anomalies(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> tuple[Cells, list[Cells]]:
    """Return the header and a line for each held-out digit: AUPRC of each score here and of the paper's systems."""
    reported = _table4(paper)
    names = sorted({system for _, system in reported}, key=lambda name: (name != "ours", name != "VAE", name))
    lines = []
    for digit, found in anomaly_means(rows, paper).items():
        here = [NOT_MEASURED if mean is None else mean.cell for mean in found]
        counts = [mean.counts for mean in found if mean] or [("-", "-")]
        theirs = [reported.get((digit, name)) for name in names]
        told = [number(one.value, one.metric, one.spread) if one else "-" for one in theirs]
        seeds, images = (" / ".join(dict.fromkeys(each)) for each in zip(*counts, strict=True))
        lines.append((str(digit), *here, seeds, images, *told))
    scores = [f"{score}, here" + ", Gaussian twin" * (name == "gaussian") for score, name in ANOMALY_SCORES]
    return ("digit", *scores, "seeds", "images", *(f"{name}, reported" for name in names)), lines


def split_means(rows: Sequence[Measurement]) -> list[OfSplit]:
    """Return the means of each model, size and score on the 80/20 test set, a model's largest size first.

    `tiny` is left out where a larger size of the model was measured.
    """
    kept = [row for row in rows if (row.dataset, row.protocol, row.source) == ("mnist", EIGHTY_TWENTY, "anomaly")]
    kept = [row for row in kept if "development" not in row.variation and row.preset in SIZES]
    digits = sorted({int(row.target) for row in kept} | set(REPORTED))
    found = []
    for model, learning in dict.fromkeys((row.model, row.learning) for row in kept):
        own = [row for row in kept if (row.model, row.learning) == (model, learning)]
        sizes = sorted({row.preset for row in own}, key=SIZES.index, reverse=True)
        for size in [size for size in sizes if size != SIZES[0]] or sizes:
            sized = [row for row in own if row.preset == size]
            for score in dict.fromkeys(row.score for row in sized):
                means = {digit: mean_of(sized, "auprc", Of("anomaly", "", str(digit), score)) for digit in digits}
                found.append(OfSplit(model, learning, size, score, means))
    return found


def anomalies_of_split(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> tuple[Cells, list[Cells]]:
    """Return the header and a line for each model and score on the 80/20 test set, a column for each digit.

    The paper's systems stand below; one with a number that no ranking of this test set reaches is said to be of
    another.
    """
    found = split_means(rows)
    digits = sorted(set(REPORTED).union(*(one.means for one in found)))
    lines = [
        (f"{one.model}, {one.learning}, {one.size}", one.score, *map(cell, one.means.values()), one.seeds)
        for one in found
    ]
    least = {digit: least_possible(digit) for digit in digits}
    lines.append(("chance", "-", *(f"{chance(digit):.3f}" for digit in digits), "-"))
    lines.append(("least possible", "-", *(f"{least[digit]:.3f}" for digit in digits), "-"))
    table4 = _table4(paper)
    for system in dict.fromkeys(one.system for one in table4.values()):
        reported = {digit: table4.get((digit, system)) for digit in digits}
        possible = all(one is None or one.value >= least[digit] for digit, one in reported.items())
        words = "reported" if possible else "reported, impossible on this test set"
        theirs = [number(one.value, one.metric, one.spread) if one else "-" for one in reported.values()]
        lines.append((f"{system}, {words}", "-", *theirs, "-"))
    return ("model", "score", *(f"digit {digit}" for digit in digits), "seeds"), lines


def _table4(paper: Mapping[str, Reported]) -> dict[tuple[int, str], Reported]:
    """Return what the paper's Table 4 reports, by digit and system."""
    found = {}
    for one in paper.values():
        if match := re.fullmatch(r"table4\.mnist-(\d)\..*", one.key):
            found[int(match[1]), one.system] = one
    return found


def outside_means(rows: Sequence[Measurement]) -> dict[str, list[Outside]]:
    """Return the mean AUROC of each score, by the datasets inside and outside, and by any size but `PRESET`."""
    asked_of = ("auroc", "out-of-distribution")
    kept = [row for row in rows if row.label in SIZES[1:] and (row.metric, row.source) == asked_of]
    scores: dict[str, set[tuple[str, str, Of, str]]] = {}
    for row in sorted(kept, key=lambda row: SIZES.index(row.label)):
        pair = f"{row.dataset} in, {row.target} out" + f", {row.label}" * (row.label != PRESET)
        scores.setdefault(pair, set()).add((row.label, row.dataset, row.of, row.learning))
    found: dict[str, list[Outside]] = {pair: [] for pair in scores}
    for pair, asked in scores.items():
        for size, dataset, of, learning in sorted(asked):
            mean = mean_of(kept, "auroc", of, dataset=dataset, learning=learning, preset=size)
            assert mean is not None  # there is a row of it
            found[pair].append(Outside(size, dataset, of, learning, mean))
    return found


def out_of_distribution(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> list[Cells]:
    """Return a line for each score measured here or reported, in the order of `OUTSIDE_HEADER`.

    No line has both: another hierarchy has other layers, so its L>k is another score.
    """
    scores = outside_means(rows)
    for one in paper.values():
        if one.metric == "auroc":
            scores.setdefault(one.dataset, [])
    lines = []
    for pair, found in scores.items():
        for one in found:
            score = one.of.score + ", Gaussian twin" * (one.learning == "gaussian")
            lines.append((pair, score, one.mean.cell, "-", *one.mean.counts))
        if not found:
            lines.append((pair, "-", NOT_MEASURED, "-", "-", "-"))
        for one in (one for one in paper.values() if (one.metric, one.dataset) == ("auroc", pair)):
            told = number(one.value, one.metric, one.spread)
            lines.append((pair, f"{one.system} ({one.model})", "-", told, "-", "-"))
    return lines
