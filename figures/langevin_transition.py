"""Figure of Langevin transitions: strips of images above the energy along short and long prior chains."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for, sentences
from figures.plotting import Level, save, transition
from jlebm.errors import UserError

LEVELS = {"saturated": "saturated pixels", "diversity": "diversity"}
LENGTHS = ("short", "long")
DRAWING = Drawing(
    "transition",
    "the Langevin transition",
    (
        *(f"{length}_{what}" for length in LENGTHS for what in ("images", "energy")),
        *(f"{level}{of}" for level in LEVELS for of in ("", "_data")),
    ),
    ("ladder", "two-stage"),
)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the short and the long chains, two figures, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not strips, energies and levels.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    levels = {}
    for name, label in LEVELS.items():
        values = require(path, arrays[name], 1, np.floating, f"{name}: floating point (snapshots,)")
        data = require(
            path, np.ravel(arrays[f"{name}_data"]), 1, np.floating, f"{name}_data: one floating point number"
        )
        levels[label] = Level(values.astype(np.float64), float(data[0]))
    written = []
    for length in LENGTHS:
        meaning = f"{length}_images: uint8 (chains, snapshots, C, H, W) with 1 or 3 channels"
        strips = require(path, arrays[f"{length}_images"], 5, np.uint8, meaning, channels=2)
        meaning = f"{length}_energy: floating point (steps + 1, chains, layers)"
        energy = require(path, arrays[f"{length}_energy"], 3, np.floating, meaning).astype(np.float64)
        # Only the long chains have levels and notes.
        more = (levels, sentences(arrays, "notes")) if length == "long" else ({}, ())
        try:
            figure = transition(strips, energy, *more, scale=scale_for(strips.shape[-1]))
        except UserError as error:
            raise UserError(f"{path}, {length} chains: {error}") from error
        written += save(figure, out / f"{artifact.name}_{length}")
    return written


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
