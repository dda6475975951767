"""Figure of samples: both priors, decoded posterior samples and data; and a sheet of the two priors."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for
from figures.exploring import Exploration
from figures.plotting import image_panels, image_rows, save

ROWS = {
    "twin": "Gaussian twin",
    "gaussian_prior": "Gaussian prior",
    "ebm_prior": "EBM prior",
    "posterior": "decoded posterior",
    "data": "data",
}
DRAWING = Drawing(
    "samples", "samples", tuple(name for name in ROWS if name != "twin"), ("two-layer", "ladder", "two-stage")
)
SHOWN = 32  # images of each kind
COLUMNS = 16
EXPLORED = 24  # images of each kind on the page that shows the kinds side by side


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw all sources, and a sheet of the EBM prior and the Gaussian one, or the twin's; return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images.
    """
    arrays, groups = _groups(artifact, results)
    gaussian, scale = ROWS["twin" if "twin" in arrays else "gaussian_prior"], scale_for(arrays["data"].shape[-1])
    sheet = image_panels({"": {name: groups[name] for name in ("EBM prior", gaussian)}}, COLUMNS // 2, scale)
    return [
        *save(image_rows(groups, COLUMNS, scale), out / artifact.name),
        *save(sheet, out / f"{artifact.name}_sheet"),
    ]


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the first images of each kind side by side.

    Raises:
        UserError: as in `draw`.
    """
    _, groups = _groups(artifact, results)
    first = ("EBM prior", *(name for name in groups if name != "EBM prior"))
    pictures = {name: groups[name][None, :EXPLORED] for name in first if name in groups}
    return [Exploration("Samples, the first ones, uncurated", pictures=pictures, columns=6)]


def _groups(artifact: Artifact, results: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays of an artifact, and the images to show of each kind by its label."""
    arrays, path = artifact.load(results), artifact.path(results)
    groups = {}
    for name, label in ROWS.items():
        if name in arrays:
            meaning = f"{name}: uint8 (N, C, H, W) with 1 or 3 channels"
            groups[label] = require(path, arrays[name], 4, np.uint8, meaning, channels=1)[:SHOWN]
    return arrays, groups


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
