"""Two processes that torchrun starts give what one gives: the same images to the bit, the same statistics and weights.

Every run here has a time limit, so that processes that wait for each other fail the test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.randomness import SharedNoise
from tests.inception import random_state, random_weights

__all__ = ["random_state", "random_weights"]

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 240  # seconds


def start(processes: int, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module alone or as several processes, each on one thread."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment)


def work(processes: int, folder: Path, job: str, *rest: str) -> None:
    folder.mkdir(exist_ok=True)
    ran = start(processes, "tests.parallel_worker", job, str(folder), *rest)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_images_are_the_same_to_the_bit(tmp_path: Path) -> None:
    """2,000 prior and 40 posterior samples; the last batches are not full. Another cut of the batches breaks it."""
    for processes in (1, 2):
        work(processes, tmp_path / str(processes), "sample")
    for name in ("prior", "prior-latents", "posterior", "posterior-latents"):
        alone, together = (np.load(tmp_path / str(processes) / f"{name}.npy") for processes in (1, 2))
        assert np.array_equal(alone, together), name
    assert len(alone) == 40
    assert len(np.load(tmp_path / "2" / "prior.npy")) == 2000


@pytest.mark.slow
def test_statistics_are_the_same(random_weights: Path, tmp_path: Path) -> None:
    """Mean and covariance of 2,000 images, and of Inception's features, to 1e-9; the cache is written once."""
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        (folder / "weights.pth").symlink_to(random_weights)
        work(processes, folder, "evaluate")
        found[processes] = np.load(folder / "statistics.npz")
        assert len(list((folder / "cache").glob("*.npz"))) == 1
    assert set(found[1]) == {"mu", "sigma", "inception", "covariance"}
    for name in found[1]:
        np.testing.assert_allclose(found[2][name], found[1][name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("learning", ["joint-mle", "variational", "two-stage", "two-stage, adapted"])
def test_training_is_the_same_but_for_rounding(learning: str, tmp_path: Path) -> None:
    """Weights, Adam, averages and noise after 12 updates in float64; a gradient that is summed twice breaks it.

    The third training begins with two processes and is finished by one from their checkpoint.
    """
    for processes in (1, 2):
        work(processes, tmp_path / str(processes), "learn", learning, "-1")
    work(2, tmp_path / "both", "learn", learning, "5")
    work(1, tmp_path / "both", "learn", learning, "-1")
    states = {name: torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("1", "2", "both")}
    for name in ("2", "both"):
        assert states[name]["step"] == 12
        assert torch.equal(states[name]["noise"], states["1"]["noise"])
        for part in ("model", "ema"):
            for key, value in states["1"][part].items():
                torch.testing.assert_close(states[name][part][key], value, rtol=1e-9, atol=1e-10)
    events = {name: [path.read_text() for path in (tmp_path / name).rglob("events.jsonl")] for name in states}
    assert all(len(text) == 1 and text[0].count("\n") == 2 for text in events.values())  # steps 1 and 11, each once


@pytest.mark.slow
def test_processes_agree_on_a_backbone(tmp_path: Path) -> None:
    """Weights, batch statistics, vectors of the power method and the average are one in both processes, to the bit.

    They are not those of one process: each batch norm normalises the part of a batch that its process has.
    """
    work(2, tmp_path, "learn", "backbone", "-1")
    first, second = json.loads((tmp_path / "digests.json").read_text())
    assert first == second
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 12
    counted = [value for name, value in state["model"].items() if name.endswith("num_batches_tracked")]
    assert {int(value) for value in counted} == {12}
    (events,) = tmp_path.rglob("events.jsonl")
    assert events.read_text().count("\n") == 2


def test_noise_of_the_parts_is_the_noise_of_the_whole() -> None:
    """Each process keeps its rows of the one stream, draw after draw."""
    whole = SharedNoise(torch.Generator().manual_seed(0))
    parts = [SharedNoise(torch.Generator().manual_seed(0), part, 2) for part in range(2)]
    for shape in ((6, 3), (6, 2, 5)):
        pieces = [part((torch.empty(3, *shape[1:]),))[0] for part in parts]
        assert torch.equal(torch.cat(pieces), whole((torch.empty(shape),))[0])


def test_alone_nothing_is_shared() -> None:
    """One process needs no group: every call is its plain meaning."""
    tensor = torch.ones(2)
    parallel.average([tensor, None])
    parallel.average([])
    assert torch.equal(tensor, torch.ones(2))
    assert (parallel.rank(), parallel.size(), parallel.first()) == (0, 1, True)
    assert parallel.agreed("word") == "word"
    assert parallel.everywhere(3) == [3]
    assert parallel.share(7, "a batch") == slice(0, 7)
    assert list(parallel.dealt(iter("abc"), 3)) == ["a", "b", "c"]

    def missing() -> None:
        raise UserError("not there")

    with pytest.raises(UserError, match="not there"):
        parallel.after_first(missing)
