import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import data, evaluation
from jlebm.evaluation import NEEDS
from jlebm.evaluation.extractor import FULL_WEIGHTS
from reproduce.evaluate import main
from tests.commands import instead


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
def test_images_of_another_size_exit_with_2(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if samples of another resolution than the dataset's get a number that looks like any other."""
    np.savez(samples, np.zeros((60, 64, 48, 3), np.uint8))
    assert command(samples) == 2
    captured = capfd.readouterr()
    assert "samples.npz are 64 x 48 pixels (height x width) and those of photos are 32 x 32" in captured.err
    assert captured.out == ""


@pytest.mark.usefixtures("small_evaluation")
def test_a_data_root_that_cannot_be_written_is_enough(
    samples: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a dataset on a read-only disk cannot be compared with, for lack of a place for its statistics."""
    (samples.parent / ".jlebm-cache").touch()  # no folder can be made here
    monkeypatch.setenv("XDG_CACHE_HOME", str(samples.parent / "user"))
    assert command(samples, "--reference-images", "70") == 0
    assert len(list((samples.parent / "user").rglob("reference-photos-train-70-768-*.npz"))) == 1


@pytest.mark.usefixtures("small_evaluation")
def test_the_answer_says_what_was_left_out_and_what_is_doubtful(
    samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a script cannot see that files were passed over, or that the images are a cast of [0, 1]."""
    pixels = np.random.default_rng(0).integers(0, 2, (60, 32, 32, 3), np.uint8)
    np.savez(samples, images=pixels, labels=np.arange(60))
    assert command(samples, "--json", "--reference-images", "70") == 0
    captured = capfd.readouterr()
    answer = json.loads(captured.out)
    assert answer["left_out"] == {"array 'labels'": 1}
    assert "above 1" in answer["doubt"]
    assert "read 60 images of" in captured.err
    assert "above 1" in captured.err


@pytest.mark.usefixtures("small_evaluation")
@pytest.mark.parametrize(
    ("references", "sentence"),
    [
        (70, "a floor of 35 images, not of the 60 here: above theirs"),
        (120, "a floor of 60 images, as many as here"),
        (200, "a floor of 100 images, not of the 60 here: below theirs"),
    ],
)
def test_the_floor_says_of_how_many_images_it_is(
    samples: Path, capfd: pytest.CaptureFixture[str], references: int, sentence: str
) -> None:
    """Breaks if a floor of fewer images than were measured, which may lie above the value, passes for its floor."""
    assert command(samples, "--reference-images", str(references)) == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "the floor" in line]
    assert f" 2 x {references // 2} " in line
    assert sentence in line


@pytest.mark.usefixtures("small_evaluation")
def test_the_size_is_compared_before_the_images_are_read(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if gigabytes are read before the first thing that is wrong with them is found."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**5, 256, 256, 3)}
    with samples.with_suffix(".npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 10**5 * 256 * 256 * 3)
    assert command(samples.with_suffix(".npy")) == 2
    assert "are 256 x 256 pixels" in capfd.readouterr().err


@pytest.mark.slow
def test_weights_in_the_data_root_are_found_checked_and_used(
    samples: Path, small_inception: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if the command does not come from a file of weights to a number by itself, without a network."""
    (samples.parent / small_inception.name).symlink_to(small_inception)
    assert command(samples, "--no-download", "--json", "--reference-images", "100") == 0
    answer = json.loads(capfd.readouterr().out)
    (score,) = answer["scores"]
    assert (score["metric"], score["images"]) == ("fid768", 60)
    assert 0 < answer["reference_halves"]["value"] < score["value"]
    assert len(list((samples.parent / ".jlebm-cache").glob("reference-photos-train-100-64-*.npz"))) == 1


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
    assert main(instead(["--images", str(samples), "--data-root", str(tmp_path)], arguments)) == 2
    captured = capfd.readouterr()
    assert sentence in captured.err.replace("\n", " ")
    assert captured.err.startswith("error: ")
    assert captured.out == ""


@pytest.mark.usefixtures("small_evaluation")
def test_copies_are_measured_beside_held_out_images(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if copied training images are not called so, or a share comes without its error and references."""
    training = data.load("digits28").images
    np.savez(samples, training[:120])
    command = [
        "--images", str(samples), "--against", "digits28", "--held-out", "digits28", "--reference-images", "130",
        "--data-root", str(samples.parent),
    ]  # fmt: skip
    assert main([*command, "--json", "--pairs", str(samples.parent / "drawn")]) == 0
    answer = json.loads(capfd.readouterr().out)
    found = {one["metric"]: one for one in answer["copies"]}
    assert list(found) == ["nearer_pixels", "copied_pixels", "nearer_768", "copied_768"]
    assert found["nearer_pixels"]["value"] == found["copied_pixels"]["value"] == 1
    assert found["nearer_pixels"]["error"] == 0
    assert found["nearer_pixels"]["reference"].startswith(f"digits28/train, {len(training)} images")
    assert found["nearer_768"]["reference"].startswith("digits28/train, 130 images")
    assert "; held out digits28/test, 297 images" in found["nearer_768"]["reference"]
    assert found["nearer_768"]["extractor"] == answer["extractor"]
    assert (samples.parent / "drawn" / "nearest.png").is_file()
    assert main(command) == 0
    assert " 1.0000 ± 0.0000 " in capfd.readouterr().out


@pytest.mark.usefixtures("small_evaluation")
def test_pairs_without_held_out_images_exit_with_2(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if a figure is asked for that cannot be drawn, and the command says nothing."""
    assert command(samples, "--pairs", str(samples.parent)) == 2
    assert "--pairs needs --held-out" in capfd.readouterr().err
