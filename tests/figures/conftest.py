"""A results folder with toy artifacts, one of each kind of figure, and the folders of runs with the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reproduce.results import write_artifact
from tests.rows import copy_open_questions, row

__all__ = ["results", "results_with_twin", "row"]

RUN = {
    "protocol": "cifar10/1",
    "dataset": "cifar10",
    "preset": "cpu",
    "learning": "joint-mle",
    "seed": 1,
    "config_digest": "c" * 64,
    "commit": "d" * 40,
}
DDPM = RUN | {"protocol": "table/1", "learning": "ddpm"}
NAMES = {
    "samples": "cifar10_joint_mle_cpu_samples",
    "langevin": "cifar10_joint_mle_cpu_langevin",
    "layers": "mnist_ladder_cpu_layers",
    "reconstruction": "mnist_ladder_cpu_reconstruction",
    "transition": "mnist_ladder_cpu_transition",
    "training": "cifar10_ddpm_cpu_training",
    "ood": "cifar10_ladder_cpu_ood_svhn",
    "nearest": "mnist_ladder_cpu_nearest",
}
"""What a toy artifact of each kind is called in the results folder."""
LADDER = {
    "protocol": "mnist-ladder/1",
    "dataset": "mnist",
    "preset": "cpu",
    "learning": "variational",
    "model": {"latent_dims": [4, 4, 4], "features": 9},
}


def pictures(*shape: int, side: int = 8, channels: int = 3) -> np.ndarray:
    """Return images (*shape, channels, side, side) of one colour each, with a dark upper left corner."""
    colours = np.random.default_rng(shape).integers(60, 256, (*shape, channels, 1, 1), dtype=np.uint8)
    images = np.broadcast_to(colours, (*shape, channels, side, side)).copy()
    images[..., : side // 2, : side // 2] //= 3
    return images


def energies(steps: int, chains: int = 6, layers: int = 3) -> np.ndarray:
    """Return energies (steps + 1, chains, layers) that fall and settle, each chain at a level of its own."""
    falling = 100 * np.exp(-np.arange(steps + 1) / 10)[:, None, None] * np.arange(1, layers + 1)
    return (falling + np.arange(chains)[:, None]).astype(np.float16)


def toys() -> dict[str, dict[str, np.ndarray]]:
    """Return small arrays for each kind of artifact."""
    rising = np.linspace(-2, 2, 40, dtype=np.float32)
    names = ("gaussian_prior", "ebm_prior", "posterior", "data")
    strips = {"short": (3, 4, 20), "long": (3, 5, 50)}
    return {
        "samples": {name: pictures(20, index + 1)[:, index] for index, name in enumerate(names)},
        "langevin": {"energy": energies(5, 4, 2)},
        "layers": {
            "panels": pictures(3, 4),
            "twin": pictures(3, 4)[::-1],
            "names": np.array(["z1, bottom", "z2, middle", "z3, top"]),
        },
        "reconstruction": {"images": pictures(2, 5), "twin": pictures(2, 5)[::-1], "note": np.array("held-out images")},
        "transition": {
            **{f"{name}_images": pictures(chains, count) for name, (chains, count, _) in strips.items()},
            **{f"{name}_energy": energies(steps) for name, (_, _, steps) in strips.items()},
            "saturated": np.linspace(0.1, 0.3, 5, dtype=np.float16),
            "saturated_data": np.array(0.2, np.float16),
            "diversity": np.linspace(0.4, 0.2, 5, dtype=np.float16),
            "diversity_data": np.array(0.3, np.float16),
            "notes": np.array(["all layers: the energy drifts by +0.001", "z3: no drift"]),
        },
        "training": {
            "loss": np.array([[1.0, 11.0, 21.0], [3.0, 2.0, 1.5]]),
            "loss/z1": np.array([[1.0, 21.0], [0.5, 0.4]]),
        },
        "ood": {
            "inside": np.stack([rising, rising + 3]),
            "outside": np.stack([rising**2, rising]),
            "names": np.array(["L>0", "LLR>2"]),
            "auroc": np.array([0.087, 0.9]),
            "auprc": np.array([0.319, 0.9]),
            "fpr80": np.array([0.9, 0.1]),
            "positive": np.array("svhn"),
        },
        "nearest": {"samples": pictures(3, 3, 4), "held_out": pictures(3, 3, 4)[::-1]},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Copy paper.toml and expected.toml, and store an artifact for every figure."""
    return store_toys(tmp_path / "results")


def store_toys(folder: Path) -> Path:
    """Make a results folder with paper.toml, open expectations and an artifact for every figure; return it."""
    folder.mkdir()
    copy_open_questions(Path(__file__).parents[2] / "results", folder)
    for kind, arrays in toys().items():
        write_artifact(folder / "artifacts" / f"{NAMES[kind]}.npz", arrays, DDPM if kind == "training" else RUN)
    write_artifact(folder / "artifacts/cifar10_ddpm_cpu_samples.npz", {"samples": pictures(20)}, DDPM)
    return folder


@pytest.fixture
def results_with_twin(results: Path) -> Path:
    """Add a twin's samples to the stored ones, as a ladder's artifact has them."""
    path = results / "artifacts" / f"{NAMES['samples']}.npz"
    arrays = toys()["samples"]
    write_artifact(path, {**arrays, "twin": arrays["gaussian_prior"][::-1]}, RUN)
    return results


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make the folder of a run with toy artifacts, whose configuration and provenance differ in the given fields."""

    def make(provenance: dict[str, Any] | None = None, **config: Any) -> Path:
        folder = tmp_path / "runs" / "mnist"
        folder.mkdir(parents=True)
        header = {"config": LADDER | config, "digest": "c" * 64, "seed": 1}
        (folder / "config.json").write_text(json.dumps(header))
        for kind, arrays in toys().items():
            name = "ood_svhn" if kind == "ood" else kind
            write_artifact(folder / f"{name}.npz", arrays, RUN | (provenance or {}))
        return folder

    return make
