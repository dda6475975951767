"""Figure of the energy along prior chains, by layer."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, sentences
from figures.plotting import energy_trace, save

DRAWING = Drawing("langevin", "the energy along prior chains", ("energy",), ("two-layer", "ladder", "two-stage"))


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the figure and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its array is no energy trace.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    energy = require(path, arrays["energy"], 3, np.floating, "energy: floating point (steps + 1, chains, layers)")
    return save(energy_trace(energy, notes=sentences(arrays, "notes")), out / artifact.name)


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
