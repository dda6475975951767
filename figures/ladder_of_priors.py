"""The ladder of priors as a table: what each part is worth, at equal time and with one generator."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from figures.means import Mean, cell, gap_closed, mean_of
from reproduce.results import Measurement, Reported
from reproduce.results.cited import Cells, Cited
from reproduce.results.identity import PRIORS
from reproduce.results.metrics import GAUSSIAN, POSTERIOR
from reproduce.results.prior_lines import LADDER, PriorLine
from reproduce.results.rendering import number
from reproduce.results.timing import NOT_MEASURED, duration

PRESET, LONGER = "cpu", "long"
PAPERS = {"cifar10": "cifar10", "celeba64": "celeba-64", "svhn-first1083": "svhn"}
"""Names in `paper.toml` of the datasets that the recipe is for."""
HEADER = (
    "data", "prior", "fid768", "posterior", "gap to its Gaussian twin closed", "reconstruction MSE", "updates",
    "training", "seeds", "images", "paper reports FID",
)  # fmt: skip


def ladder_of_priors(rows: Sequence[Measurement], paper: Mapping[str, Reported]) -> list[Cells]:
    """Return a line for each dataset and prior, in the order of `HEADER`; one line for a dataset without rows.

    Args:
        rows: all measured rows; a wall-clock budget ends these trainings.
        paper: what the papers report, by key.
    """
    ours = [row for row in rows if row.recipe == PRIORS and row.preset in (PRESET, LONGER)]
    longer = sorted({row.dataset for row in ours if row.preset == LONGER})
    datasets = dict.fromkeys([*PAPERS, *sorted(row.dataset for row in ours)])
    asked = [*((dataset, PRESET) for dataset in datasets), *((dataset, LONGER) for dataset in longer)]
    return [
        cells
        for dataset, preset in asked
        for cells in _of_dataset(dataset, preset, [row for row in ours if row.preset == preset], paper)
    ]


def _of_dataset(
    dataset: str, preset: str, rows: Sequence[Measurement], paper: Mapping[str, Reported]
) -> Iterator[Cells]:
    found = {line.name: _rows_of(line, dataset, rows) for line in LADDER}
    if not any(found.values()):
        yield (dataset, f"all {len(LADDER)}", NOT_MEASURED, *["-"] * (len(HEADER) - 3))
        return
    for line in LADDER:
        own = found[line.name]
        prior, posterior = mean_of(own, "fid768", line.source), mean_of(own, "fid768", POSTERIOR)
        error = mean_of(own, "reconstruction_mse", POSTERIOR)
        twin = mean_of(found[line.twin], "fid768", GAUSSIAN) if line.twin else None
        shown = prior or error
        if preset == LONGER and not found[line.name]:
            continue  # only the claim's two layers are asked for at length
        yield (
            dataset + f", {preset}" * (preset != PRESET),
            line.title,
            prior.cell if prior else NOT_MEASURED,
            cell(posterior),
            gap_closed(twin, prior, posterior),
            cell(error),
            *_trained(shown),
            *(shown.counts if shown else ("-", "-")),
            _reported(line, dataset, paper),
        )


def _rows_of(line: PriorLine, dataset: str, rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the rows of one prior, as it was last configured."""
    own = [row for row in rows if (row.dataset, row.model, row.variation) == (dataset, line.name, line.variation)]
    last = max(own, key=lambda row: row.time, default=None)
    return [row for row in own if last and (row.protocol, row.config_digest) == (last.protocol, last.config_digest)]


def _trained(mean: Mean | None) -> tuple[str, str]:
    """Return updates and wall-clock time of the training, means over seeds."""
    if mean is None:
        return "-", "-"
    updates = statistics.fmean(row.steps for row in mean.rows)
    seconds = statistics.fmean(row.wall_seconds["train"] for row in mean.rows)
    return Cited(f"{updates:,.0f}", mean.rows), Cited(duration(seconds), mean.rows)


def _reported(line: PriorLine, dataset: str, paper: Mapping[str, Reported]) -> str:
    one = paper.get(line.paper.format(PAPERS.get(dataset, dataset)))
    return "-" if one is None else number(one.value, one.metric)
