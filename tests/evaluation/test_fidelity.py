from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from torch.utils.data import TensorDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from jlebm.errors import UserError
from jlebm.evaluation import fidelity
from jlebm.evaluation.extractor import FULL_WEIGHTS, open_extractor
from jlebm.evaluation.fidelity import ALL, NEEDS, NotMeasured, Score, describe_reference, evaluate, halves
from jlebm.evaluation.reference import ReferenceSet, load_reference

CPU = torch.device("cpu")


class Images(TensorDataset):
    """What torch-fidelity takes: bare tensors."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0]


@pytest.mark.slow
def test_the_frechet_distance_is_torch_fidelitys(
    random_weights: Path, make_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if resizing, batches, streaming sums or the faster network move the value by 1e-6 relative.

    The 64-feature layer on smaller inputs stands for the 768 one, which needs ten times the images and a hundred
    times the time.
    """
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
    monkeypatch.setitem(NEEDS, "fid768", replace(NEEDS["fid768"], layer="64", images=64))
    real, ours = make_dataset(68, size=8), make_dataset(66, seed=1, size=8)
    ours.images[:, :, ::2] = 100
    (score,) = evaluate(
        ours.images, ReferenceSet(real, tmp_path), open_extractor(random_weights), CPU, metrics=["fid768"]
    )
    upstream = torch_fidelity.calculate_metrics(
        input1=Images(torch.from_numpy(ours.images)),
        input2=Images(torch.from_numpy(real.images)),
        fid=True,
        feature_extractor="inception-v3-compat",
        feature_layer_fid="64",
        feature_extractor_weights_path=str(random_weights),
        batch_size=32,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert isinstance(score, Score)
    assert score.value == pytest.approx(upstream["frechet_inception_distance"], rel=1e-6)
    assert score == Score("fid768", score.value, None, 66)


@pytest.fixture
def small_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every metric do with 30 images, and KID with subsets of 20."""
    for metric, need in NEEDS.items():
        monkeypatch.setitem(NEEDS, metric, replace(need, images=30))
    monkeypatch.setitem(torch_fidelity.defaults.DEFAULTS, "kid_subset_size", 20)


@pytest.mark.usefixtures("small_needs")
def test_every_metric_is_torch_fidelitys_own(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if a metric gets the wrong layer, samples and reference change places, or an argument differs."""
    samples, real = make_dataset(60, seed=1).images // 2, make_dataset(80)
    scores = {score.metric: score for score in evaluate(samples, ReferenceSet(real, tmp_path), extractor, CPU)}
    assert tuple(scores) == ALL
    network = small_network(extractor, ["768", "2048", "logits_unbiased"], CPU)
    ours, theirs = network(torch.from_numpy(samples)), network(torch.from_numpy(real.images))
    for metric, layer in (("fid768", "768"), ("fid", "2048")):
        statistics = [torch_fidelity.metric_fid.fid_features_to_statistics(x[layer].double()) for x in (ours, theirs)]
        expected = torch_fidelity.metric_fid.fid_statistics_to_metric(*statistics, False)
        assert scores[metric].value == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
        assert scores[metric].spread is None
    expected = torch_fidelity.metric_isc.isc_features_to_metric(ours["logits_unbiased"])
    assert scores["is"].value == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert scores["is"].spread == pytest.approx(expected["inception_score_std"], rel=1e-4)
    expected = torch_fidelity.metric_kid.kid_features_to_metric(ours["2048"], theirs["2048"], verbose=False)
    assert scores["kid"].value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert scores["kid"].spread == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-4)
    expected = torch_fidelity.metric_prc.prc_features_to_metric(ours["2048"], theirs["2048"], verbose=False)
    assert expected["precision"] != expected["recall"]
    assert (scores["precision"].value, scores["recall"].value) == (expected["precision"], expected["recall"])
    assert {score.images for score in scores.values()} == {60}


@pytest.mark.usefixtures("small_needs")
def test_halves_are_free_after_an_evaluation(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if the floor needs a pass of its own, or is not between even-indexed and odd-indexed images."""
    real = make_dataset(80)
    evaluate(make_dataset(40, seed=1).images, ReferenceSet(real, tmp_path), extractor, CPU, metrics=["fid768"])
    passed = small_network.passed
    floor = halves(ReferenceSet(real, tmp_path), extractor, CPU)
    assert small_network.passed == passed
    features = small_network(extractor, ["768"], CPU)(torch.from_numpy(real.images))["768"].double()
    statistics = [torch_fidelity.metric_fid.fid_features_to_statistics(features[start::2]) for start in (0, 1)]
    expected = torch_fidelity.metric_fid.fid_statistics_to_metric(*statistics, False)
    assert floor.value == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    assert (floor.metric, floor.images) == ("fid768", 40)
    with pytest.raises(UserError, match="a half of noise has 10"):
        halves(ReferenceSet(real, tmp_path, 20), extractor, CPU)


@pytest.mark.usefixtures("small_needs")
def test_one_channel_in_memory_or_mapped_is_the_same(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if a read-only memory map is judged otherwise than an array, or cannot be read."""
    samples, real = make_dataset(40, seed=1), make_dataset(40)
    np.save(tmp_path / "samples.npy", samples.images)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    assert evaluate(mapped, ReferenceSet(real, tmp_path), extractor, CPU) == evaluate(
        samples.images, ReferenceSet(real, tmp_path), extractor, CPU
    )


def test_too_few_images_are_not_measured_and_say_how_many_are_needed(
    small_network, extractor, make_dataset, tmp_path: Path
) -> None:
    """Breaks if a metric is given out at fewer images than it can be computed from, or a pass is wasted on it."""
    scores = evaluate(make_dataset(99).images, ReferenceSet(make_dataset(5), tmp_path), extractor, CPU)
    assert [score.metric for score in scores] == list(ALL)
    reasons = {score.metric: score.reason for score in scores if isinstance(score, NotMeasured)}
    assert reasons["fid768"] == "needs 768 images (the covariance of 768 features), got 99"
    assert reasons["is"] == "needs 100 images (10 in each of 10 splits), got 99"
    for metric in ("fid", "kid", "precision", "recall"):
        assert reasons[metric].startswith("needs 2048 images")
    (score,) = evaluate(
        make_dataset(800).images, ReferenceSet(make_dataset(50), tmp_path), extractor, CPU, metrics=["fid768"]
    )
    assert isinstance(score, NotMeasured)
    assert score.reason == "needs 768 reference images (the covariance of 768 features), got 50"
    assert small_network.opened == 0


@pytest.mark.usefixtures("small_needs")
def test_partial_weights_measure_fid768_alone(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if a number comes under a standard name from weights that do not give it."""
    partial = replace(extractor, layers=("64", "192", "768"))
    scores = evaluate(make_dataset(40, seed=1).images, ReferenceSet(make_dataset(40), tmp_path), partial, CPU)
    assert [score.metric for score in scores if isinstance(score, Score)] == ["fid768"]
    for score in scores[1:]:
        assert isinstance(score, NotMeasured)
        assert "is not exact in some-weights.pth" in score.reason
        assert FULL_WEIGHTS in score.remedy


def test_without_weights_nothing_is_measured(make_dataset, tmp_path: Path) -> None:
    """Breaks if there is a substitute for the metric network."""
    scores = evaluate(make_dataset(40).images, ReferenceSet(make_dataset(40), tmp_path), None, CPU)
    assert [type(score) for score in scores] == [NotMeasured] * len(ALL)


@pytest.mark.usefixtures("small_needs")
def test_the_inception_score_needs_no_reference(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if the score of samples waits for statistics that it does not use."""
    (score,) = evaluate(
        make_dataset(40).images, ReferenceSet(make_dataset(2), tmp_path), extractor, CPU, metrics=["is"]
    )
    assert isinstance(score, Score)
    assert small_network.passed == 40


def test_bad_arguments_get_a_sentence(extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if an unknown metric, float images or another shape end in a traceback or a number."""
    real = make_dataset(5)
    with pytest.raises(UserError, match="there is no metric 'recal'; the nearest known one is 'recall'"):
        evaluate(real.images, ReferenceSet(real, tmp_path), extractor, CPU, metrics=["recal"])
    with pytest.raises(UserError, match="uint8 and are float32; round them once"):
        fidelity.check_images(real.images.astype(np.float32))
    for images in (real.images[0], real.images[:, :2], real.images[:0]):
        with pytest.raises(UserError, match="must have the shape"):
            fidelity.check_images(images)


def test_reference_and_samples_may_share_the_cache(small_network, extractor, make_dataset, tmp_path: Path) -> None:
    """Breaks if statistics that `evaluate` left are not those that `load_reference` finds."""
    load_reference(ReferenceSet(make_dataset(20), tmp_path), extractor, ["768"], CPU)
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_the_reference_is_named_by_split_count_and_pixels(make_dataset) -> None:
    """Breaks if rows that were held against the same images stop saying it in the same words."""
    assert describe_reference(make_dataset(8, seed=0x1F << 248)) == "noise/train, 8 images, sha256:1f0000000000"
    assert describe_reference(make_dataset(8), 5) == "noise/train, 5 images, sha256:000000000000"
