"""The energy along prior chains, layer by layer."""

from pathlib import Path

import numpy as np

from figures.common import Artifact, require
from jlebm.plotting import energy_trace, save

ARTIFACT = Artifact("cifar10_joint_mle_cpu_langevin", "nox -s reproduce_cifar10 -- --preset cpu", ("energy",))


def draw(results: Path, out: Path) -> list[Path]:
    """Draw the figure and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its array is no energy trace.
    """
    arrays, path = ARTIFACT.load(results), ARTIFACT.path(results)
    energy = require(path, arrays["energy"], 3, np.floating, "energy: floating point (steps + 1, chains, layers)")
    return save(energy_trace(energy), out / ARTIFACT.name)
