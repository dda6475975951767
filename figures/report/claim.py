"""The paper's claim held to what was measured: is the joint EBM prior nearer to the data than the Gaussian prior is?"""

from collections.abc import Sequence
from dataclasses import dataclass

from figures import summaries
from figures.report.contents import Contents
from reproduce.results import METRICS, Measurement
from reproduce.results.cited import Cited
from reproduce.results.rendering import number
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


OUTCOMES = {
    "nearer": "nearer to the data, beyond the spread over seeds",
    "one seed": "nearer to the data, on one seed",
    "not nearer": "not nearer to the data",
}
"""What a comparison can say, in words."""


def comparisons(contents: Contents) -> list[Comparison]:
    """Return a comparison for each dataset and model with both priors, in the order of `summaries.headline`."""
    rows = [row for row in contents.rows if row.complete]
    lines = summaries.headline(rows, [one.verdict for one in contents.judged])
    found = []
    for dataset, model, gaussian, ebm, posterior, gap, seeds, images, verdict in lines:
        if isinstance(gaussian, Cited) and isinstance(ebm, Cited):
            cells = (gaussian, ebm, posterior, gap)
            found.append(Comparison(f"{dataset}, {model}", cells, seeds, images, verdict, outcome(gaussian, ebm)))
    return found


def outcome(gaussian: Cited, ebm: Cited) -> str:
    """Return the key of `OUTCOMES` for two cells: by their means, and the standard deviations over seeds around them."""
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
        return f"{METRICS[METRIC].label} of both priors was not measured, so the claim is not judged here."
    said = [
        f"{count} of {len(found)}: {words}"
        for name, words in OUTCOMES.items()
        if (count := sum(one.outcome == name for one in found))
    ]
    return f"Images of the joint EBM prior beside those of the Gaussian prior, by {METRICS[METRIC].label}. " + (
        "; ".join(said) + "."
    )


def reported(contents: Contents) -> str:
    """Say what the paper reports of both priors; "" where it is not stored."""
    nvae, ours = contents.paper.get(NVAE), contents.paper.get(OURS)
    if nvae is None or ours is None:
        return ""
    label = METRICS[ours.metric].label
    return (
        f"The paper reports a CIFAR-10 {label} of {number(ours.value, ours.metric)} for {ours.system}, and of "
        f"{number(nvae.value, nvae.metric)} for {nvae.system}."
    )
