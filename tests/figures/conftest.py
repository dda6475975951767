"""A results folder with toy artifacts."""

from pathlib import Path

import numpy as np
import pytest

from figures import langevin, samples
from jlebm.results import write_artifact
from tests.rows import copy_open_questions, row

__all__ = ["results", "row"]

RUN = {
    "protocol": "cifar10/1",
    "dataset": "cifar10",
    "preset": "cpu",
    "learning": "joint-mle",
    "seed": 1,
    "config_digest": "c" * 64,
    "commit": "d" * 40,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Copy paper.toml and expected.toml, and store every artifact."""
    folder = tmp_path / "results"
    folder.mkdir()
    copy_open_questions(Path(__file__).parents[2] / "results", folder)
    random = np.random.default_rng(0)
    images = {
        name: random.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        for name in ("gaussian_prior", "ebm_prior", "posterior", "data")
    }
    chains = {"energy": random.normal(size=(5, 4, 2))}
    for script, arrays in ((samples, images), (langevin, chains)):
        for artifact in script.ARTIFACTS:
            write_artifact(artifact.path(folder), arrays, RUN)
    return folder
