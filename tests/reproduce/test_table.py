"""The command of the table: what it refuses before anything runs, and the table of what is stored."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from jlebm.data import Dataset
from jlebm.randomness import GENERATOR, Noise
from reproduce import table
from reproduce.pipelines import run_table
from reproduce.pipelines.table_system import likelihood
from reproduce.systems import built, presets_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a results folder without rows."""
    (tmp_path / "measured").mkdir()
    shutil.copy(ROOT / "results/paper.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--systems", "dpm"], "nearest known one is 'ddpm'"),
        (["--systems", "nvae"], "not a system that this command trains"),
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--seeds", "1", "1"], "each only once"),
        (["--set", "training.steps=3"], "--set applies to one system"),
        (["--systems", "ddpm", "--set", "learning=ncsn"], "names the rows"),
        (["--systems", "ddpm", "--set", "model.chanels=[8]"], "nearest known one is 'model.channels'"),
        (["--budget", "soon"], "not a time"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake that is found only after hours of training breaks this."""
    assert table.main([*arguments, "--device", "cpu", "--results", str(folder), "--data-root", str(folder)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_the_table_of_an_empty_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--only-table runs nothing and names the command of every line."""
    assert table.main(["--only-table", "--preset", "cpu", "--device", "cpu", "--results", str(folder)]) == 0
    said = capsys.readouterr().out
    for name in built():
        assert f"reproduce_table -- --systems {name} --preset cpu --seeds 1 --results {folder}\n" in said
    assert not list((folder / "measured").iterdir())


def test_what_is_set_makes_another_preset() -> None:
    """A changed configuration that kept the preset's name would be averaged with it."""
    arguments = table.Arguments(systems=("ddpm",), set=("training.steps=3",), budget="90s")
    one = run_table._experiment("ddpm", "tiny", arguments)
    assert (one.preset, one.training.steps, one.training.budget_seconds) == ("custom", 3, 90.0)
    assert one.digest() != presets_of("ddpm")["tiny"].digest()


def test_bits_per_dimension_are_a_mean_over_the_held_out_images() -> None:
    """Images of the training set, a last batch that weighs as a whole one, or nats in place of bits break this."""

    class Brightness:
        bits = 5

        def log_likelihood(self, x: torch.Tensor, noise: Noise) -> torch.Tensor:
            return -math.log(2) * ((x + 1) / 2 * 255).flatten(1).sum(1)

    levels = np.random.default_rng(3).integers(0, 9, (230, 1, 1, 1), dtype=np.uint8)
    held_out = Dataset("digits", "test", np.broadcast_to(levels, (230, 3, 4, 4)), None, "a" * 64, "made here")
    rows: Any = SimpleNamespace(session=SimpleNamespace(device=torch.device("cpu"), noise=GENERATOR))
    part = likelihood(rows, Brightness(), held_out)
    ((one, value, _, said),) = part.answers(part.wanted)
    assert (one.metric, one.of.name, one.images) == ("bits_per_dimension", "held-out", 230)
    assert one.reference == "digits/test, 230 images, sha256:aaaaaaaaaaaa"
    assert value == pytest.approx(levels.mean(), rel=1e-5)
    assert said == {"chain": "", "bits": 5}
