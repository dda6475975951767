"""The energy along prior chains, layer by layer."""

from pathlib import Path

import numpy as np

from figures.common import KEPT, Artifact, require
from jlebm.plotting import energy_trace, save

ARTIFACTS = tuple(one.of("langevin", ("energy",)) for one in KEPT)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the figure and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its array is no energy trace.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    energy = require(path, arrays["energy"], 3, np.floating, "energy: floating point (steps + 1, chains, layers)")
    notes = [str(note) for note in arrays.get("notes", ())]
    return save(energy_trace(energy, notes=notes), out / artifact.name)
