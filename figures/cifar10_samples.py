"""Images of the Gaussian prior, of the EBM prior, of decoded posterior samples, and of the data, one under another."""

from pathlib import Path

import numpy as np

from figures.common import Artifact, require
from jlebm.plotting import image_rows, save

ROWS = {
    "gaussian_prior": "Gaussian prior",
    "ebm_prior": "EBM prior",
    "posterior": "decoded posterior",
    "data": "data",
}
ARTIFACT = Artifact("cifar10_joint_mle_cpu_samples", "nox -s reproduce_cifar10 -- --preset cpu", tuple(ROWS))
SHOWN = 32  # images of each kind
COLUMNS = 16


def draw(results: Path, out: Path) -> list[Path]:
    """Draw the figure and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images.
    """
    arrays, path = ARTIFACT.load(results), ARTIFACT.path(results)
    groups = {}
    for name, label in ROWS.items():
        meaning = f"{name}: uint8 (N, C, H, W) with 1 or 3 channels"
        groups[label] = require(path, arrays[name], 4, np.uint8, meaning, channels=1)[:SHOWN]
    return save(image_rows(groups, COLUMNS), out / ARTIFACT.name)
