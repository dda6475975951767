"""The energy along prior chains, layer by layer, and snapshots of the images on the way where they are stored."""

from pathlib import Path

import numpy as np

from figures.common import Artifact, require
from jlebm.errors import UserError
from jlebm.plotting import energy_trace, image_grid, save

ARTIFACT = Artifact("cifar10_joint_mle_langevin", "nox -s reproduce_cifar10 -- --preset cpu", ("energy",))


def draw(results: Path, out: Path) -> list[Path]:
    """Draw the figure, and the snapshots where the artifact has "images" uint8 (chains, snapshots, C, H, W).

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays have other shapes.
    """
    arrays, path = ARTIFACT.load(results), ARTIFACT.path(results)
    energy = require(path, arrays["energy"], 3, "f", "energy: floating point (steps + 1, chains, layers)")
    written = save(energy_trace(energy), out / ARTIFACT.name)
    if "images" in arrays:
        images = require(path, arrays["images"], 5, "u", "images: uint8 (chains, snapshots, C, H, W)")
        if images.dtype != np.uint8 or images.shape[2] not in (1, 3):
            raise UserError(f"{path}: images is {images.dtype} with {images.shape[2]} channels, not uint8 with 1 or 3")
        grid = image_grid(images.reshape(-1, *images.shape[2:]), columns=images.shape[1])
        written += save(grid, out / f"{ARTIFACT.name}_images")
    return written
