"""Registry of the tables in README and docs: name, page, and how each is made from the stored rows.

A table's function returns a header and lines of cells; `PageTable.text` formats them, once. Its walk is one line here
and one function: `figures.summaries`, `figures.ladder_of_priors`, `figures.detection_tables`, `figures.performance`,
`figures.paper_map`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from figures import ladder_of_priors, paper_map
from figures.detection_tables import OUTSIDE_HEADER, anomalies, anomalies_of_split, out_of_distribution
from figures.performance import performance
from figures.registry import FIGURES
from figures.stored import Stored
from figures.summaries import (
    HEADLINE_HEADER,
    LAYERS_HEADER,
    LONGER_HEADER,
    PRIORS_HEADER,
    VARIATIONS_HEADER,
    headline,
    layers,
    longer,
    priors,
    systems,
    variations,
)
from reproduce.results import METRICS, Verdict, comparison
from reproduce.results.cited import Cells
from reproduce.results.rendering import judged, markdown, measured, number

Grid = tuple[Cells, Sequence[Cells]]
"""Header and lines."""
MEASURED_HEADER = ("data, preset", "model, learning", "metric", "of", "measured", "expected", "verdict")
FIGURES_HEADER = ("command", "draws", "from", "of the models")


class PageTable(NamedTuple):
    """One table of a page."""

    name: str
    """In the marks around it, and the name of its file."""
    page: str
    make: Callable[[Stored], Grid | str]
    """Returns header and lines, or Markdown where several tables share one place."""
    title: str = ""
    """Title in the report; "" for a table that the report lacks."""

    def text(self, stored: Stored) -> str:
        """Return the Markdown."""
        made = self.make(stored)
        return made if isinstance(made, str) else markdown(*made)


def measured_means(verdicts: Sequence[Verdict]) -> list[Cells]:
    """Return a line for each mean over seeds, with its expectation, in the order of `MEASURED_HEADER`."""
    lines = []
    for verdict in verdicts:
        one = verdict.expectation
        if verdict.mean is None:
            continue
        held = "-" if one.value is None else number(one.value, one.metric, one.tolerance)
        label = METRICS[one.metric].label
        cells = (f"{one.dataset}, {one.label}", one.trained, label, one.of.name, measured(verdict), held)
        lines.append((*cells, judged(verdict)))
    return lines


def kinds_of_figures() -> list[Cells]:
    """Return a line for each kind of figure, in the order of `FIGURES_HEADER`."""
    return [
        (f"python -m {one.command}", one.drawing.title, f"{one.drawing.kind}.npz", ", ".join(one.drawing.models))
        for one in FIGURES
    ]


TABLES = (
    PageTable("priors", "README.md", lambda s: (PRIORS_HEADER, priors(s.complete)), "Priors of one backbone"),
    PageTable("longer", "README.md", lambda s: (LONGER_HEADER, longer(s.complete)), "Priors after an hour"),
    PageTable(
        "headline",
        "docs/results.md",
        lambda s: (HEADLINE_HEADER, headline(s.complete, s.verdicts)),
        "Both priors of every model",
    ),
    PageTable(
        "systems",
        "docs/systems.md",
        lambda s: (comparison.HEADER, systems(s.rows, s.paper)),
        "Other systems (Table 2)",
    ),
    PageTable(
        "variations",
        "docs/two_stage.md",
        lambda s: (VARIATIONS_HEADER, variations(s.complete)),
        "Samples drawn otherwise",
    ),
    PageTable(
        "ladder-of-priors",
        "docs/results.md",
        lambda s: (ladder_of_priors.HEADER, ladder_of_priors.ladder_of_priors(s.rows, s.paper)),
        "What each part of a prior is worth (Tables 1 and 5)",
    ),
    PageTable("layers", "docs/results.md", lambda s: (LAYERS_HEADER, layers(s.complete)), "Layer by layer"),
    PageTable(
        "anomalies",
        "docs/detection.md",
        lambda s: anomalies(s.complete, s.paper),
        "Anomalies: a digit held out (Table 4)",
    ),
    PageTable("anomalies-80-20", "docs/detection.md", lambda s: anomalies_of_split(s.complete, s.paper)),
    PageTable(
        "out-of-distribution",
        "docs/detection.md",
        lambda s: (OUTSIDE_HEADER, out_of_distribution(s.complete, s.paper)),
        "Out-of-distribution detection",
    ),
    PageTable("measured", "results/README.md", lambda s: (MEASURED_HEADER, measured_means(s.verdicts))),
    PageTable("figures", "docs/figures.md", lambda s: (FIGURES_HEADER, kinds_of_figures())),
    PageTable("performance", "docs/performance.md", performance),
    PageTable("paper", "README.md", paper_map.table),
)
PAGES = {page: tuple(one.name for one in TABLES if one.page == page) for page in dict.fromkeys(t.page for t in TABLES)}
"""Names of the tables of each page."""
