"""Images of the Gaussian prior, of the EBM prior, of decoded posterior samples, and of the data, one under another."""

from pathlib import Path

import numpy as np

from figures.common import KEPT, Artifact, require
from jlebm.plotting import image_rows, save

ROWS = {
    "gaussian_prior": "Gaussian prior",
    "ebm_prior": "EBM prior",
    "posterior": "decoded posterior",
    "data": "data",
}
ARTIFACTS = tuple(one.of("samples", tuple(ROWS)) for one in KEPT)
SHOWN = 32  # images of each kind
COLUMNS = 16


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the figure and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    groups = {}
    for name, label in ROWS.items():
        meaning = f"{name}: uint8 (N, C, H, W) with 1 or 3 channels"
        groups[label] = require(path, arrays[name], 4, np.uint8, meaning, channels=1)[:SHOWN]
    return save(image_rows(groups, COLUMNS), out / artifact.name)
