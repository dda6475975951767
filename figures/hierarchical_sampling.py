"""Figure of hierarchical sampling: one draw of the prior, with one layer or group redrawn in each panel."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for
from figures.exploring import Exploration
from figures.plotting import image_panels, save
from jlebm.errors import UserError

DRAWING = Drawing("layers", "hierarchical sampling", ("panels", "twin", "names"), ("ladder", "two-stage"), layers=2)
SIDE = 5  # images along a panel of the sheet, which fits on a page
ROWS = {"panels": "EBM\nprior", "twin": "Gaussian\ntwin"}


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the panels from the bottom layer to the top one, the twin's below, and a sheet of their first draws.

    Returns the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not as many panels of images as names.
    """
    arrays, rows = _rows(artifact, results)
    columns, scale = round(arrays["panels"].shape[1] ** 0.5), scale_for(arrays["panels"].shape[-1])
    first = {label: {name: panel[: SIDE**2] for name, panel in panels.items()} for label, panels in rows.items()}
    return [
        *save(image_panels(rows, columns, scale), out / artifact.name),
        *save(image_panels(first, min(SIDE, columns), scale), out / f"{artifact.name}_sheet"),
    ]


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the first draws of each panel, by the layer, or group of layers, that is drawn anew.

    Raises:
        UserError: as in `draw`.
    """
    arrays, rows = _rows(artifact, results)
    columns = min(SIDE, round(arrays["panels"].shape[1] ** 0.5))
    panels = {label.replace("\n", " "): np.stack(list(found.values()))[:, : SIDE**2] for label, found in rows.items()}
    positions = tuple(f"{name}; all other layers kept" for name in rows["EBM\nprior"])
    return [Exploration("Hierarchical sampling", "the layer drawn anew", positions, panels, columns)]


def _rows(artifact: Artifact, results: Path) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Return the arrays, and the panels of model and twin by what each draws anew."""
    arrays, path = artifact.load(results), artifact.path(results)
    names = [str(name) for name in require(path, arrays["names"], 1, np.str_, "names: text (panels,)")]
    rows = {}
    for name, label in ROWS.items():
        meaning = f"{name}: uint8 (panels, draws, C, H, W) with 1 or 3 channels"
        panels = require(path, arrays[name], 5, np.uint8, meaning, channels=2)
        if len(panels) != len(set(names)):
            raise UserError(
                f"{path} has {len(panels)} panels in {name!r} and the names {names}; give each panel its own"
            )
        rows[label] = dict(zip(names, panels, strict=True))
    return arrays, rows


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
