"""Registry of the kinds of figures, read by `python -m figures` and docs/figures.

A new kind is a script beside these and a line here (docs/extending, "A figure").
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from figures import (
    energy_trace,
    front,
    hierarchical_reconstruction,
    hierarchical_sampling,
    langevin_transition,
    nearest_images,
    samples,
    score_histograms,
    system_samples,
    training_curves,
)
from figures.common import Artifact, Draw, Drawing
from figures.exploring import Exploration
from jlebm.files import files_in

Explore = Callable[[Artifact, Path], list[Exploration]]


class Script(Protocol):
    """A module that draws one kind of figure, one artifact at a time."""

    __name__: str
    DRAWING: Drawing

    def draw(self, artifact: Artifact, results: Path, out: Path) -> list[Path]:
        """Draw an artifact and return the files written."""
        ...


class Figure(NamedTuple):
    """One kind of figure, drawn from each artifact or from all of them on sheets."""

    command: str
    """Module of the script, for `python -m`."""
    drawing: Drawing
    draw: Draw | None = None
    """Draws one artifact."""
    sheets: Callable[[Path, Path], list[Path]] | None = None
    """Draws all stored artifacts, given the results and the output folder, and returns the files written."""
    explore: Explore | None = None
    """Returns what a reader moves through in one artifact; without it the report shows the drawing."""

    @classmethod
    def of(cls, script: Script) -> "Figure":
        """Return the kind of figure that a script draws."""
        return cls(script.__name__, script.DRAWING, script.draw, explore=getattr(script, "explore", None))


FIGURES = [
    Figure.of(samples),
    Figure.of(front),
    Figure.of(hierarchical_sampling),
    Figure.of(hierarchical_reconstruction),
    Figure.of(energy_trace),
    Figure.of(langevin_transition),
    Figure.of(score_histograms),
    Figure.of(nearest_images),
    Figure.of(training_curves),
    Figure(
        "figures.system_samples",
        system_samples.DRAWING,
        sheets=system_samples.draw_sheets,
        explore=system_samples.explore,
    ),
]


def draw_stored(results: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Draw every artifact of a results folder; return the files written, and a sentence for each that was not drawn.

    Raises:
        UserError: an artifact is damaged or has the wrong arrays.
    """
    written, missing, drawn = [], [], set()
    for figure in FIGURES:
        artifacts = figure.drawing.stored(results)
        drawn |= {artifact.path(results) for artifact in artifacts}
        if not artifacts:
            missing.append(figure.drawing.nothing(results))
        elif figure.sheets is not None:
            written += figure.sheets(results, out)
        elif figure.draw is not None:
            written += [path for artifact in artifacts for path in figure.draw(artifact, results, out)]
    for path in sorted(set(files_in(results / "artifacts", "*.npz")) - drawn):
        missing.append(f"not drawn: {path} belongs to no kind of figure in figures/registry.py")
    return written, missing
