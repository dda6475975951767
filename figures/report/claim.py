"""The claim compared with what was measured: whether the joint EBM prior is nearer to the data than the Gaussian is."""

from collections.abc import Sequence
from dataclasses import dataclass

from figures import summaries
from figures.means import cell, gap_closed, mean_of
from figures.report.contents import Contents
from reproduce.results import METRICS, Measurement
from reproduce.results.cited import Cited
from reproduce.results.metrics import EBM, GAUSSIAN, POSTERIOR
from reproduce.results.rendering import judged, number
from reproduce.results.verdicts import summary

METRIC = "fid768"  # what both priors of every model are judged by; a distance, of which less is nearer
NVAE, OURS = "table2.cifar10.nvae.fid", "table2.cifar10.ours.fid"


@dataclass(frozen=True)
class Comparison:
    """One model with both priors, judged alike.

    Attributes:
        model: "cifar10, two-stage".
        cells: Gaussian prior, EBM prior, posterior, gap closed, as texts that know their rows.
        seeds: over how many the mean of the EBM prior is.
        images: of each mean.
        verdict: of `check`, on the EBM prior's mean.
        outcome: a key of `OUTCOMES`.
    """

    model: str
    cells: tuple[str, str, str, str]
    seeds: str
    images: str
    verdict: str
    outcome: str

    @property
    def digests(self) -> set[str]:
        """The configurations whose images the EBM prior's mean is of."""
        ebm = self.cells[1]
        rows = ebm.rows if isinstance(ebm, Cited) else ()
        return {row.config_digest for row in rows if isinstance(row, Measurement)}


OUTCOMES = {
    "nearer": "nearer to the data beyond the spread over seeds",
    "one seed": "nearer on one seed alone",
    "not nearer": "not nearer to the data",
}
"""What a comparison can say, in words."""


def comparisons(contents: Contents) -> list[Comparison]:
    """Return a comparison for each dataset and model with both priors, in the order of `summaries.headline`.

    On the page of one run it is for each of its configurations.
    """
    rows = [row for row in contents.rows if row.complete]
    if contents.run:
        return _of_run(contents, rows)
    lines = summaries.headline(rows, [one.verdict for one in contents.judged])
    found = []
    for dataset, model, gaussian, ebm, posterior, gap, seeds, images, verdict in lines:
        if isinstance(gaussian, Cited) and isinstance(ebm, Cited):
            cells = (gaussian, ebm, posterior, gap)
            found.append(Comparison(f"{dataset}, {model}", cells, seeds, images, verdict, outcome(gaussian, ebm)))
    return found


def _of_run(contents: Contents, rows: Sequence[Measurement]) -> list[Comparison]:
    verdicts = {id(row): one.verdict for one in contents.judged for row in one.rows}
    found = []
    for digest in dict.fromkeys(row.config_digest for row in rows):
        group = [row for row in rows if row.config_digest == digest]
        means = [mean_of(group, METRIC, of) for of in (GAUSSIAN, EBM, POSTERIOR)]
        gaussian, ebm, posterior = map(cell, means)
        if isinstance(gaussian, Cited) and isinstance(ebm, Cited):
            first = next(row for row in ebm.rows if isinstance(row, Measurement))
            verdict = verdicts.get(id(first))
            said = "" if verdict is None else judged(verdict)
            cells = (gaussian, ebm, posterior, gap_closed(*means))
            counts = (str(len(ebm.rows)), str(first.images))
            model = f"{first.dataset}, {first.learning}, {first.label}"
            found.append(Comparison(model, cells, *counts, said, outcome(gaussian, ebm)))
    return found


def outcome(gaussian: Cited, ebm: Cited) -> str:
    """Return the key of `OUTCOMES` for two cells: by their means and standard deviations over seeds."""
    (one, spread, count), (other, others, counts) = (_summary(cell) for cell in (gaussian, ebm))
    if other >= one:
        return "not nearer"
    if min(count, counts) < 2 or spread is None or others is None:
        return "one seed"
    return "nearer" if one - other > spread + others else "not nearer"


def _summary(cell: Cited) -> tuple[float, float | None, int]:
    return summary([row for row in cell.rows if isinstance(row, Measurement)])


def sentence(found: Sequence[Comparison]) -> str:
    """Say in how many comparisons the claim holds."""
    if not found:
        return f"The claim is not judged here: {METRICS[METRIC].label} of both priors was not measured."
    said = [
        f"{words} in {count}"
        for name, words in OUTCOMES.items()
        if (count := sum(one.outcome == name for one in found))
    ]
    many = f"Of {len(found)} comparisons" if len(found) > 1 else "In one comparison"
    return f"{many} with the Gaussian prior by {METRICS[METRIC].label}, the joint EBM prior is {', '.join(said)}."


def reported(contents: Contents) -> str:
    """Say what the paper reports of both priors; "" where it is not stored."""
    nvae, ours = contents.paper.get(NVAE), contents.paper.get(OURS)
    if nvae is None or ours is None:
        return ""
    label = METRICS[ours.metric].label
    return (
        f"On CIFAR-10 the paper reports {label} {number(ours.value, ours.metric)} for its joint EBM prior, and "
        f"{number(nvae.value, nvae.metric)} for the Gaussian prior of the same NVAE."
    )
