"""What a training recorded, of every kind of model: losses and energies over its steps."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require
from figures.exploring import Exploration, training_plots
from figures.plotting import curve_panels, save
from jlebm.errors import UserError

DRAWING = Drawing(
    "training", "what a training recorded", (), ("system", "two-layer", "ladder", "two-stage", "gaussian")
)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw panels of what the training recorded and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or does not hold curves.
    """
    return save(curve_panels(_curves(artifact, results)), out / artifact.name)


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the panels that `draw` draws.

    Raises:
        UserError: as in `draw`.
    """
    return [Exploration("Training curves", plots=tuple(training_plots(_curves(artifact, results))))]


def _curves(artifact: Artifact, results: Path) -> dict[str, np.ndarray]:
    arrays, path = artifact.load(results), artifact.path(results)
    for name, array in arrays.items():
        meaning = f"{name}: floating point (2, records), steps above values"
        if len(require(path, array, 2, np.floating, meaning)) != 2:
            raise UserError(f"{path} holds an array of shape {array.shape}, and not {meaning}")
    if not arrays:
        raise UserError(f"{path} holds no curve; {artifact.again}")
    return arrays


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
