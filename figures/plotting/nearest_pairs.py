"""Images above their nearest training images: samples, and held-out images below them."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from figures.plotting.grids import image_panels

PANELS = ("the first", "nearest in pixels", "nearest in features")

Beside = UInt8[np.ndarray, "panels rows count channels height width"]


def nearest_pairs(kinds: Mapping[str, Beside], scale: int = 2) -> Figure:
    """Draw images of each kind, with their nearest training images in pixels and in features below them.

    Args:
        kinds: by name, "samples" and "held out"; the first panel has the first images, the others those that are
            nearest to the training images; the first row has the images, the others their nearest training images.
        scale: figure pixels to an image pixel.

    Raises:
        UserError: there are no images, or `scale` is below 1.
    """
    rows = {}
    for kind, beside in kinds.items():
        for number, title in enumerate((kind, *(f"{kind}:\n{name}" for name in PANELS[1:]))[: beside.shape[1]]):
            rows[title] = dict(zip(PANELS, (panel[number] for panel in beside), strict=False))
    return image_panels(rows, next(iter(kinds.values())).shape[2], scale)
