"""What the other systems of the paper's Table 2 recorded in training, and the first samples of all of them."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require
from figures.plotting import curve_panels, image_rows, save
from figures.summaries import mean_of
from jlebm.errors import UserError
from reproduce.results import Measurement, read_all, read_artifact
from reproduce.results.table_lines import BASELINES, SYSTEMS, System

DATASET, PRESET = "cifar10", "cpu"
DRAWING = Drawing("training", "what a system recorded in training", (), ("system",))
COMMAND = "nox -s reproduce_table -- --systems {} --preset " + PRESET
ARTIFACTS = tuple(
    Artifact(f"{DATASET}_{system.learning}_{PRESET}_training".replace("-", "_"), COMMAND.format(system.name), ())
    for system in BASELINES
)
SHEET = f"{DATASET}_{PRESET}_systems"
SHOWN = 12  # images of each system


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw a panel for each figure that the system recorded and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or holds something else than curves.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    for name, array in arrays.items():
        meaning = f"{name}: floating point (2, records), steps above values"
        if len(require(path, array, 2, np.floating, meaning)) != 2:
            raise UserError(f"{path} holds an array of shape {array.shape}, where {meaning} is meant")
    if not arrays:
        raise UserError(f"{path} holds no curve; make it again with `{artifact.command}`")
    return save(curve_panels(arrays), out / artifact.name)


def draw_sheet(results: Path, out: Path) -> list[Path]:
    """Draw the first samples of every system that has some, in the table's order; return the files written.

    Raises:
        UserError: an artifact is damaged or of another run, or its arrays are not images.
    """
    measured, rows = read_all(results / "measured"), {}
    for system in SYSTEMS:
        stem = f"{DATASET}_{system.learning}_{PRESET}_samples".replace("-", "_")
        path, name = results / "artifacts" / f"{stem}.npz", system.source.replace("-", "_")
        if path.exists():
            arrays, _ = read_artifact(path, (name,), measured)
            meaning = f"{name}: uint8 (N, 3, H, W)"
            rows[_label(system, measured)] = require(path, arrays[name], 4, np.uint8, meaning, channels=1)[:SHOWN]
    return save(image_rows(rows, SHOWN), out / SHEET) if rows else []


def _label(system: System, measured: list[Measurement]) -> str:
    asked = {"dataset": DATASET, "preset": PRESET, "learning": system.learning}
    mean = mean_of(measured, "fid768", system.source, **asked)
    score = "not measured" if mean is None else f"fid768 {mean.value:.2f}"
    return f"{system.title.partition(':')[0]}\n{score}"


if __name__ == "__main__":
    sys.exit(main(DRAWING, ARTIFACTS, draw))
