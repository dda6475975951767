import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import evaluation
from jlebm.evaluation import NEEDS
from jlebm.evaluation.inception import FULL_WEIGHTS
from reproduce.evaluate import main


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8))
    return path


@pytest.fixture
def small_evaluation(small_network, extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `fid768` do with 30 images of a small network, which gives nothing else."""
    partial = replace(extractor, layers=("64", "192", "768"))
    monkeypatch.setitem(NEEDS, "fid768", replace(NEEDS["fid768"], images=30))
    monkeypatch.setattr(evaluation, "find_extractor", lambda *rest: partial)
    monkeypatch.setattr(evaluation, "self_check", lambda *rest: None)


def command(samples: Path, *rest: str) -> int:
    return main(["--images", str(samples), "--against", "photos", "--data-root", str(samples.parent), *rest])


@pytest.mark.usefixtures("small_evaluation")
def test_json_goes_to_stdout_and_talk_to_stderr(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if a script cannot read the answer, or a number comes without what it takes to trust it."""
    assert command(samples, "--json", "--name", "mine", "--reference-images", "70") == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["name"], answer["images"]) == ("mine", 60)
    assert answer["reference"].startswith("photos/train, 70 images, sha256:")
    assert answer["extractor"] == "inception-2015-12-05, sha256:000000000000"
    assert [score["metric"] for score in answer["scores"]] == ["fid768"]
    assert answer["reference_halves"]["images"] == 35
    assert [missing["metric"] for missing in answer["not_measured"]] == ["fid", "is", "kid", "precision", "recall"]


@pytest.mark.usefixtures("small_evaluation")
def test_the_table_has_every_metric_with_its_value_or_the_remedy(
    samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if what is not measured is left out, or a row loses its reference."""
    assert command(samples, "--reference-images", "70") == 0
    out = capfd.readouterr().out
    assert "samples.npz against photos" in out
    (line,) = [line for line in out.splitlines() if line.startswith("│ fid768  ")]
    assert "photos/train, 70 images" in line
    assert "the floor" in out
    assert out.count("not measured: ") == 5
    assert out.count(FULL_WEIGHTS) == 5


@pytest.mark.usefixtures("small_evaluation")
def test_too_few_images_for_anything_exit_with_2(
    samples: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a table of nothing passes for an evaluation."""
    monkeypatch.setitem(NEEDS, "fid768", replace(NEEDS["fid768"], images=768))
    assert command(samples) == 2
    captured = capfd.readouterr()
    assert "nothing can be measured" in captured.err
    assert "needs 768 images (the covariance of 768 features), got 60" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--against", "cifar1"], "there is no dataset 'cifar1'; the nearest known one is 'cifar10'"),
        (["--against", "cifar10", "--no-download"], "cifar10 (train) is not in the data root"),
        (["--against", "photos", "--no-download"], "the Inception weights are not in the data root"),
        (["--against", "photos", "--device", "cuda"], "no CUDA device"),
        (["--against", "photos", "--images", "nowhere.npz"], "there are no images at nowhere.npz"),
    ],
)
def test_bad_arguments_exit_with_2_and_a_sentence(
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    """Breaks if bad input ends in a traceback, or the sentence goes where the numbers go."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--images", str(samples), "--data-root", str(tmp_path), *arguments]) == 2
    captured = capfd.readouterr()
    assert sentence in captured.err.replace("\n", " ")
    assert captured.err.startswith("error: ")
    assert captured.out == ""
