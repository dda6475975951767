"""Figure of hierarchical reconstruction: images with their k bottom layers taken from the prior."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for, sentences
from figures.exploring import Exploration
from figures.plotting import image_panels, save
from jlebm.errors import UserError

DRAWING = Drawing("reconstruction", "hierarchical reconstruction", ("images",), ("ladder", "two-stage"), layers=2)
PRIORS = {"images": "EBM", "twin": "Gauss"}  # as wide as a column
WORDS = {"images": "EBM prior", "twin": "Gaussian prior"}
SHOWN = 5  # values of k for each prior
MEANING = (
    "k: number of bottom layers, those named, that come from the prior given the layers above, which are samples of "
    "q(z|x); at the largest k nothing is left of the image."
)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the input and the reconstructions by k, of model and twin, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images of two layers or more.
    """
    arrays, found = _images(artifact, results)
    columns = {}
    for name, images in found.items():
        layers = images.shape[1] - 2
        columns.setdefault("input", images[:, 0])
        for k in np.unique(np.linspace(0, layers, min(layers + 1, SHOWN)).round().astype(int)):
            columns[f"{PRIORS[name]}\nk = {k}\n{_named(k)}"] = images[:, 1 + k]
    notes = [MEANING, *sentences(arrays, "note")]
    figure = image_panels({"": columns}, 1, scale_for(arrays["images"].shape[-1]), notes)
    return save(figure, out / artifact.name)


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the images beside their reconstructions, by how many layers are kept.

    Raises:
        UserError: as in `draw`.
    """
    arrays, found = _images(artifact, results)
    layers = arrays["images"].shape[1] - 2
    pictures = {"input": arrays["images"][None, :, 0]}
    pictures |= {WORDS[name]: np.swapaxes(images[:, 1:], 0, 1) for name, images in found.items()}
    return [
        Exploration(
            "Hierarchical reconstruction",
            "layers kept",
            tuple(_kept(k, layers) for k in range(layers + 1)),
            pictures,
            columns=4,
            notes=(MEANING, *sentences(arrays, "note")),
        )
    ]


def _images(artifact: Artifact, results: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays, and of them the images of each prior by name."""
    arrays, path = artifact.load(results), artifact.path(results)
    found = {}
    for name in PRIORS:
        if name not in arrays:
            continue
        meaning = f"{name}: uint8 (rows, layers + 2, C, H, W) with 1 or 3 channels"
        images = require(path, arrays[name], 5, np.uint8, meaning, channels=2)
        if images.shape[1] - 2 < DRAWING.layers or images.shape != arrays["images"].shape:
            raise UserError(f"{path} holds {name} of shape {images.shape}, which are not (rows, layers + 2, C, H, W)")
        found[name] = images
    return arrays, found


def _kept(k: int, layers: int) -> str:
    if k == 0:
        return f"all {layers} layers kept from q(z|x)"
    if k == layers:
        return f"no layer kept: z1 to z{k} from the prior"
    return f"{layers - k} of {layers} layers kept; {'z1' if k == 1 else f'z1 to z{k}'} from the prior"


def _named(k: int) -> str:
    return ("-", "z1", "z1, z2")[k] if k < 3 else f"z1–z{k}"


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
