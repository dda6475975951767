"""A results folder with toy artifacts."""

from pathlib import Path

import numpy as np
import pytest

from figures import cifar10_langevin, cifar10_samples
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
    """Copy paper.toml and expected.toml, and store both artifacts."""
    folder = tmp_path / "results"
    folder.mkdir()
    copy_open_questions(Path(__file__).parents[2] / "results", folder)
    random = np.random.default_rng(0)
    images = {
        name: random.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        for name in ("gaussian_prior", "ebm_prior", "posterior", "data")
    }
    write_artifact(folder / "artifacts" / f"{cifar10_samples.ARTIFACT.name}.npz", images, RUN)
    chains = {"energy": random.normal(size=(5, 4, 2))}
    write_artifact(folder / "artifacts" / f"{cifar10_langevin.ARTIFACT.name}.npz", chains, RUN)
    return folder
