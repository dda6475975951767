"""Figure of the energy along prior chains, by layer."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, sentences
from figures.exploring import Exploration, energy_plot
from figures.plotting import energy_trace, save

DRAWING = Drawing("langevin", "the energy along prior chains", ("energy",), ("two-layer", "ladder", "two-stage"))


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the figure and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its array is no energy trace.
    """
    energy, notes = _trace(artifact, results)
    return save(energy_trace(energy, notes=notes), out / artifact.name)


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the energy over the steps of the prior's chains, and what their diagnostics say.

    Raises:
        UserError: as in `draw`.
    """
    energy, notes = _trace(artifact, results)
    title = f"Energy along the prior's chains: mean and standard deviation over {energy.shape[1]} chains"
    return [Exploration(title, plots=(energy_plot("energy E(z), lower is more likely", energy),), notes=tuple(notes))]


def _trace(artifact: Artifact, results: Path) -> tuple[np.ndarray, list[str]]:
    arrays, path = artifact.load(results), artifact.path(results)
    energy = require(path, arrays["energy"], 3, np.floating, "energy: floating point (steps + 1, chains, layers)")
    return energy, sentences(arrays, "notes")


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
