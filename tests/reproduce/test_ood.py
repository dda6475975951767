"""Out-of-distribution detection from its command line: whose images are positive, and what the scores are."""

import dataclasses
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from jlebm import data
from jlebm.data.catalogue import CATALOGUE, Entry
from reproduce import ood, results
from reproduce.pipelines import run_ood
from tests.commands import instead
from tests.small import IMAGES, experiment, fit_one, ladder_experiment

TEST = np.random.default_rng(5).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
NAMES = ["L>0", "L>1", "L>2", "LLR>1", "LLR>2"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a data root with the dataset "noise" of tests.small and a test split of it, and a results folder."""
    monkeypatch.setitem(CATALOGUE, "noise", Entry("noise", shape=(8, 8, 1)))
    for name, images in (("noise", IMAGES), ("noise-test", TEST)):
        (tmp_path / "root" / name).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image[0]).save(tmp_path / "root" / name / f"{index:03}.png")
    (tmp_path / "results/measured").mkdir(parents=True)
    for name in ("paper.toml", "expected.toml"):
        (tmp_path / "results" / name).write_text("")
    return tmp_path / "root"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a ladder of these settings when it is first asked for; returns the folder of its run."""

    @cache
    def once(stop_after: int | None, settings: tuple[tuple[str, str], ...]) -> Path:
        one = ladder_experiment(**dict(settings))
        return fit_one(tmp_path_factory.mktemp("runs"), one, IMAGES, stop_after)[0].folder

    return once


@pytest.fixture
def trained(root: Path, once: Callable[..., Path]) -> Callable[..., Path]:
    """Returns a copy of such a run, which a test may write to."""

    def trained(stop_after: int | None = None, **settings: str) -> Path:
        folder = once(stop_after, tuple(settings.items()))
        return shutil.copytree(folder, root.parent / "runs" / folder.name)

    return trained


def command(root: Path, run: Path, *said: str) -> list[str]:
    usual = [
        "--run", str(run), "--outside", "digits", "--data-root", str(root), "--no-download", "--device", "cpu",
        "--results", str(root.parent / "results"),
    ]  # fmt: skip
    return instead(usual, said)


@pytest.mark.parametrize("learning", ["variational", "gaussian"])
def test_the_whole_way(root: Path, trained: Callable[..., Path], learning, capsys: pytest.CaptureFixture[str]) -> None:
    """Three metrics of five scores with their protocol in the row; the same command again stores nothing."""
    run = trained(learning=learning)
    assert ood.main(command(root, run)) == 0
    measured = results.read_all(root.parent / "results/measured")
    assert len(measured) == 15
    assert {row.of.name for row in measured} == {f"out-of-distribution/digits/{name}" for name in NAMES}
    chain = "3 steps" if learning == "variational" else ""
    for row in measured:
        assert (row.dataset, row.protocol, row.images, row.weights) == ("noise", "ood/1", 60, "ema")
        name = row.of.name.rpartition("/")[2]
        sign = "" if name.startswith("LLR") else "-"
        assert row.reference == (
            "positive: outside, 30 images of digits/train; negative: inside, 30 of noise/test; mean of 1 draws; "
            f"score: {sign}{name}"
        )
        assert row.chain.startswith(chain if name != "L>0" else "")
        assert bool(row.chain) == (learning == "variational" and name != "L>0")
    assert ood.main(command(root, run)) == 0
    assert results.read_all(root.parent / "results/measured") == measured
    assert "was measured before; its rows are kept" in capsys.readouterr().err
    more = command(root, run, "--draws", "2")
    for again in (more, command(root, run), more):  # the arrays of the run are of the draws that were asked for last
        before = (run / "ood_digits.npz").read_bytes()
        assert ood.main(again) == 0
        assert (run / "ood_digits.npz").read_bytes() != before


def test_the_artifact_holds_the_scores_of_the_rows(root: Path, trained: Callable[..., Path]) -> None:
    """LLR>k is L>0 - L>k on both sides, and the metrics find the outside images by -L and by LLR."""
    run = trained()
    assert ood.main(command(root, run, "--images", "20")) == 0
    measured = results.read_all(root.parent / "results/measured")
    names = ("inside", "outside", "names", "auroc", "auprc", "fpr80", "positive")
    arrays, identity = results.read_artifact(run / "ood_digits.npz", names, measured)
    inside, outside = arrays["inside"], arrays["outside"]
    assert arrays["names"].tolist() == NAMES
    assert (inside.shape, outside.shape, inside.dtype, outside.dtype) == ((5, 20), (5, 20), np.float32, np.float32)
    assert (str(arrays["positive"]), identity["dataset"], identity["protocol"]) == ("digits", "noise", "ood/1")
    for side in (inside, outside):
        for k in (1, 2):
            np.testing.assert_allclose(side[2 + k], side[0] - side[k], rtol=0, atol=1e-3)
            assert np.abs(side[2 + k]).max() > 0.01
    stored = {(row.of.name.rpartition("/")[2], row.metric): row.value for row in measured}
    for index, name in enumerate(NAMES):
        sign = -1 if index < 3 else 1
        scores, labels = sign * np.concatenate([outside[index], inside[index]]), [1] * 20 + [0] * 20
        for metric, judge in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
            assert stored[name, metric] == arrays[metric][index] == pytest.approx(judge(labels, scores), abs=1e-6)


def test_digits_are_outside_of_noise(root: Path, trained: Callable[..., Path]) -> None:
    """Of two sets that share nothing L>0 tells which image is whose: a side that is scored twice breaks it."""
    run = trained()
    assert ood.main(command(root, run)) == 0
    arrays, _ = results.read_artifact(run / "ood_digits.npz", ("auroc",), [])
    assert max(arrays["auroc"][0], 1 - arrays["auroc"][0]) > 0.95


@pytest.mark.parametrize(("preset", "learning", "kept"), [("cpu", "variational", True), ("cpu", "gaussian", False)])
def test_what_the_repository_keeps(root: Path, trained: Callable[..., Path], preset: str, learning, kept: bool) -> None:
    """The first seed of a full preset's EBM prior, to the byte; never a first look, nor its twin under that name."""
    run = trained(preset=preset, learning=learning)
    assert ood.main(command(root, run)) == 0
    path = root.parent / "results/artifacts/noise_ladder_cpu_ood_digits.npz"
    assert path.exists() == kept
    if kept:
        assert path.read_bytes() == (run / "ood_digits.npz").read_bytes()


def test_images_of_another_size_are_enlarged_smoothly() -> None:
    """A plane stays a plane inside its border, and what is constant stays so; the colours are not mixed."""
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    images = np.stack([ramp, ramp.T, np.full_like(ramp, 77)])[None]
    photos = dataclasses.replace(data.load("photos"), images=images, labels=None)
    found = run_ood.sized(photos, (3, 32, 32), resize=True).images[0].astype(float)
    assert found.shape == (3, 32, 32)
    np.testing.assert_allclose(np.diff(found[0], axis=1)[:, 1:-1], 5, atol=1)
    np.testing.assert_array_equal(found[1], found[0].T)
    assert (found[2] == 77).all()


def test_a_resized_set_says_so_in_its_rows(
    root: Path, trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of enlarged images are never taken for rows of images of that size."""
    large = np.random.default_rng(6).integers(0, 256, (25, 12, 12, 1), dtype=np.uint8)
    entry = Entry("large", shape=(12, 12, 1), splits=("train",), embedded=lambda: (large, np.zeros(25, np.int64)))
    monkeypatch.setitem(CATALOGUE, "large", entry)
    run = trained()
    assert ood.main(command(root, run, "--outside", "large", "--resize")) == 0
    measured = results.read_all(root.parent / "results/measured")
    said = "positive: outside, 25 images of large/train brought from 12 pixels (bilinear); negative"
    assert all(row.reference.startswith(said) for row in measured)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (["--outside", "celeba64"], "celeba64 (test) is not in the data root"),
        (["--outside", "photos"], "an out-of-distribution set of another shape, (3, 32, 32) and not (1, 8, 8); take"),
        (["--outside", "photos", "--resize"], "of another shape, (3, 32, 32) and not (1, 8, 8); take another"),
        (["--held-out", "photos"], "the run is of images of (1, 8, 8), and photos has (3, 32, 32)"),
        (["--held-out", "noize"], "there is no dataset 'noize'; the nearest known one is 'noise'"),
        (["--images", "0"], "--images and --draws must be at least 1"),
        (["--draws", "1" + "0" * 24], "--draws must be at most 1,000,000,000"),
        (["--run", "nowhere"], "nowhere is not the folder of a run"),
    ],
)
def test_bad_input_is_a_sentence(
    root: Path, trained: Callable[..., Path], said: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one sentence, no row."""
    assert ood.main(command(root, trained(), *said)) == 2
    assert sentence in capsys.readouterr().err
    assert results.read_all(root.parent / "results/measured") == []


@pytest.mark.slow
def test_a_run_that_cannot_be_judged_is_a_sentence(
    root: Path, trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that has not ended, one without a checkpoint, a model without a ladder's layers."""
    early = trained(stop_after=3)
    two_layers, _ = fit_one(root.parent / "runs", experiment("variational"), IMAGES)
    bare = trained(preset="bare")
    (bare / "checkpoint.pt").unlink()
    for run, sentence in (
        (early, "is at step 3 of 20; let its recipe finish it first"),
        (two_layers.folder, "is the run of another model than a ladder"),
        (bare, "has no checkpoint"),
    ):
        assert ood.main(command(root, run)) == 2
        assert sentence in capsys.readouterr().err


def test_what_was_trained_on_is_never_held_out(
    root: Path, trained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset of one split has nothing that training has not seen, and one whose test split is missing says so."""
    run = trained()
    monkeypatch.setitem(CATALOGUE, "noise", Entry("noise", shape=(8, 8, 1), splits=("train",)))
    assert ood.main(command(root, run)) == 2
    assert "all of it was trained on; name other images with --held-out" in capsys.readouterr().err
    monkeypatch.setitem(CATALOGUE, "noise", Entry("noise", shape=(8, 8, 1)))
    (root / "noise-test").rename(root / "elsewhere")
    assert ood.main(command(root, run)) == 2
    assert "or name images not used in training with --held-out" in capsys.readouterr().err
