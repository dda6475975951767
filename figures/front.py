"""The front page's picture: samples of the joint EBM prior beside those of a Gaussian one, a ladder's twin if any."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for
from figures.exploring import Exploration
from figures.plotting import image_panels, save

TITLES = {"ebm_prior": "joint EBM prior", "twin": "its twin, Gaussian prior"}
WITHOUT_TWIN = {"ebm_prior": "joint EBM prior", "gaussian_prior": "Gaussian prior, same generator"}
DRAWING = Drawing(
    "samples", "the EBM prior beside a Gaussian one", tuple(WITHOUT_TWIN), ("two-layer", "ladder", "two-stage")
)
COLUMNS = 8
ROWS = 2


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the first images by seed of both; return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images.
    """
    shown = _both(artifact, results)
    side = next(iter(shown.values())).shape[-1]
    return save(image_panels({"": shown}, COLUMNS, scale_for(side)), out / f"{artifact.name}_front")


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return a ladder's first images and its twin's, each by its title; `samples` shows all other kinds side by side.

    Raises:
        UserError: as in `draw`.
    """
    pictures = {title: images[None] for title, images in _both(artifact, results).items()}
    if TITLES["twin"] not in pictures:
        return []
    return [Exploration("The joint EBM prior beside its Gaussian twin", pictures=pictures, columns=COLUMNS)]


def _both(artifact: Artifact, results: Path) -> dict[str, np.ndarray]:
    """Return the images to show of each prior, by its title."""
    arrays, path = artifact.load(results), artifact.path(results)
    shown = {}
    for name, title in (TITLES if "twin" in arrays else WITHOUT_TWIN).items():
        meaning = f"{name}: uint8 (N, C, H, W) with 1 or 3 channels"
        shown[title] = require(path, arrays[name], 4, np.uint8, meaning, channels=1)[: COLUMNS * ROWS]
    return shown


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
