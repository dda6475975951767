"""Figure of samples with their nearest training images, and of held-out images with theirs."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for
from figures.exploring import Exploration
from figures.plotting import nearest_pairs, save

KINDS = {"samples": "samples", "held_out": "held out"}
DRAWING = Drawing(
    "nearest",
    "samples with their nearest training images",
    tuple(KINDS),
    ("two-layer", "ladder", "gaussian", "two-stage"),
    option="--held-out DATASET",
)
MEANING = "uint8 (panels, rows, N, C, H, W) with 1 or 3 channels"


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw samples and held-out images above their nearest training images, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images.
    """
    kinds = _kinds(artifact, results)
    side = next(iter(kinds.values())).shape[-1]
    return save(nearest_pairs(kinds, scale_for(side)), out / artifact.name)


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the samples that are nearest to the training images in the last space, beside those images.

    Raises:
        UserError: as in `draw`.
    """
    pictures = {}
    for kind, beside in _kinds(artifact, results).items():
        for name, row in zip((kind, f"{kind}, nearest training images"), (beside[-1, 0], beside[-1, -1]), strict=True):
            pictures[name] = row[None]
    return [Exploration("Samples nearest to the training images", pictures=pictures, columns=4)]


def _kinds(artifact: Artifact, results: Path) -> dict[str, np.ndarray]:
    arrays, path = artifact.load(results), artifact.path(results)
    kinds = {}
    for name, label in KINDS.items():
        kinds[label] = require(path, arrays[name], 6, np.uint8, f"{name}: {MEANING}", channels=3)
    return kinds


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
