"""Every kind of figure: what it is drawn from, and what draws it. `python -m figures` and docs/figures read this alone.

A new one is a script of its own beside these, and a line here (docs/extending, "A figure").
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
    samples,
    score_histograms,
    system_samples,
)
from figures.common import Artifact, Draw, Drawing


class Script(Protocol):
    """A module that draws one kind of figure, an artifact at a time."""

    __name__: str
    DRAWING: Drawing

    def draw(self, artifact: Artifact, results: Path, out: Path) -> list[Path]:
        """Draw an artifact and return the files written."""
        ...


class Figure(NamedTuple):
    """One kind of figure; it draws each artifact for itself, or all of them on sheets."""

    command: str
    """The script, as `python -m` takes it."""
    drawing: Drawing
    draw: Draw | None = None
    """One artifact."""
    sheets: Callable[[Path, Path], list[Path]] | None = None
    """All stored ones: from the results folder and the output folder to the files written."""

    @classmethod
    def of(cls, script: Script) -> "Figure":
        """Return the kind of figure that a script draws."""
        return cls(script.__name__, script.DRAWING, script.draw)


FIGURES = [
    Figure.of(samples),
    Figure.of(front),
    Figure.of(hierarchical_sampling),
    Figure.of(hierarchical_reconstruction),
    Figure.of(energy_trace),
    Figure.of(langevin_transition),
    Figure.of(score_histograms),
    Figure.of(system_samples),
    Figure("figures.system_samples", system_samples.SHEET, sheets=system_samples.draw_sheets),
]


def draw_stored(results: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Draw every artifact of a results folder; return the files written, and a sentence for all that was not drawn.

    Raises:
        UserError: an artifact is damaged, or is not what its figure is drawn from.
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
    for path in sorted(set((results / "artifacts").glob("*.npz")) - drawn):
        missing.append(f"not drawn: {path} is of no figure; figures/registry.py names the kinds that there are")
    return written, missing
