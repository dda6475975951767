"""Nearest training images: an exact search, a share that is a half by chance, and what copies and bad samples give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm.data import Dataset
from jlebm.errors import UserError
from jlebm.evaluation.copying import copying
from jlebm.evaluation.feature_files import features, kept_features
from jlebm.evaluation.neighbours import nearest_rows
from jlebm.evaluation.reference import ReferenceSet
from jlebm.evaluation.training_images import TrainingImages

DIMENSION = 40


def images(seed: int, count: int, side: int = 8) -> np.ndarray:
    """Return uint8 images of a distribution with near and far neighbours: blurred noise around a few patterns."""
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).integers(60, 200, (5, 3, side, side))
    noise = generator.normal(0, 20, (count, 3, side, side))
    return np.clip(patterns[generator.integers(0, 5, count)] + noise, 0, 255).astype(np.uint8)


def dataset(seed: int, count: int, name: str = "mine") -> Dataset:
    return Dataset(name, "train", images(seed, count), None, f"{seed:064d}", "made here")


def brute(queries: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and indices by every difference in float64."""
    a, b = (each.reshape(len(each), -1).astype(np.float64) for each in (queries, among))
    all_of_them = np.stack([np.sqrt(np.square(row - b).sum(1)) for row in a])
    return all_of_them.min(1), all_of_them.argmin(1)


# ---- the search


@pytest.mark.parametrize("kind", ["pixels", "features", "far from zero", "one dimension"])
def test_the_search_is_that_of_float64(kind: str) -> None:
    """Breaks if float32 rounding decides which row is nearest, or how far it is: equal to 1e-12 of the distance."""
    generator = np.random.default_rng(0)
    queries, among = {
        "pixels": (images(0, 90), images(1, 300)),
        "features": (np.float32(generator.gamma(0.3, 1, (90, 768))), np.float32(generator.gamma(0.3, 1, (300, 768)))),
        "far from zero": (1e4 + generator.normal(size=(90, 30)), 1e4 + generator.normal(size=(300, 30))),
        "one dimension": (generator.normal(size=(90, 1)), generator.normal(size=(300, 1))),
    }[kind]
    among[7] = among[200]  # a tie, of which the first counts
    queries[5] = among[200]
    found = nearest_rows(queries, among)
    distance, index = brute(queries, among)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(found.row, index)
    assert (found.distance[5], found.row[5]) == (0, 7)


def test_chunks_change_no_bit() -> None:
    """Breaks if how much is in memory at a time decides between rows that are nearly as near, or rounds otherwise."""
    generator = np.random.default_rng(0)
    among = np.float32(generator.normal(size=(400, DIMENSION)))
    among[1::2] = among[::2] + np.float32(1e-4) * np.float32(generator.normal(size=(200, DIMENSION)))  # near doubles
    queries = np.float32(generator.normal(size=(120, DIMENSION)))
    whole = nearest_rows(queries, among)
    for chunk in ((1, 1), (7, 13), (120, 31), (50, 400)):
        part = nearest_rows(queries, among, chunk)
        np.testing.assert_array_equal(part.distance, whole.distance)
        np.testing.assert_array_equal(part.row, whole.row)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_training_images() -> None:
    """Breaks if all distances, or all training images as floats, are in memory at once."""
    import tracemalloc

    queries, among = images(0, 600), np.resize(images(1, 500), (20_000, 3, 8, 8))
    tracemalloc.start()
    nearest_rows(queries, among, (100, 500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * 600 * 20_000 * 8


def test_a_search_without_an_answer_gets_a_sentence() -> None:
    """Breaks if unlike shapes, nothing to search or NaN end in a traceback or a wrong neighbour."""
    with pytest.raises(UserError, match="cannot be found among"):
        nearest_rows(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(UserError, match="cannot be found among"):
        nearest_rows(np.zeros((2, 3)), np.zeros((0, 3)))
    with pytest.raises(UserError, match="not finite"):
        nearest_rows(np.zeros((2, 3)), np.full((2, 3), np.nan))


# ---- the shares


def shares(samples: np.ndarray, held_out: np.ndarray, training: np.ndarray):
    return copying(nearest_rows(samples, training).distance, nearest_rows(held_out, training).distance)


def test_copies_fresh_draws_and_far_samples() -> None:
    """Breaks if a share is turned round, or a fresh draw of the data is called a copy."""
    training, held_out = images(0, 700), images(1, 400)
    copies = shares(training[:200], held_out, training)
    assert copies.nearer == (1, 0)
    assert copies.copied.value == 1
    far = shares(255 - images(2, 200), held_out, training)
    assert far.nearer.value < 0.01
    assert far.copied.value == 0
    fresh = shares(images(3, 300), held_out, training)
    assert abs(fresh.nearer.value - 0.5) < 3 * fresh.nearer.error
    assert abs(fresh.copied.value - 0.01) < 3 * fresh.copied.error


def test_few_copies_among_bad_samples_are_in_the_tail_alone() -> None:
    """Breaks if only the mean rank is looked at: most samples are far, and a twentieth are copies with some noise."""
    training, held_out = images(0, 700), images(1, 400)
    samples = 255 - images(2, 200)
    samples[::20] = np.clip(
        training[::70].astype(int) + np.random.default_rng(0).integers(-2, 3, (10, 3, 8, 8)), 0, 255
    )
    found = shares(samples, held_out, training)
    assert found.nearer.value < 0.1
    assert found.copied.value == pytest.approx(0.05)


def test_the_errors_cover_over_fresh_draws() -> None:
    """Breaks if an error is too small by a third, or leaves out that the held-out images are few, too.

    Of 200 z values of one distribution the standard deviation is 1 within 0.05; three of that are allowed above.
    """
    z = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        found = copying(generator.gamma(4, size=400), generator.gamma(4, size=300))
        z.append([(found.nearer.value - 0.5) / found.nearer.error, (found.copied.value - 0.01) / found.copied.error])
    assert (np.std(z, axis=0) < 1.15).all()
    assert (np.std(z, axis=0) > 0.7).all()
    assert (np.abs(np.mean(z, axis=0)) < 0.25).all()


@pytest.mark.parametrize("number", [101, 150, 200])
def test_a_fresh_draw_is_in_the_tail_as_often_as_the_tail_says(number: int) -> None:
    """Breaks if the quantile of few images were the next image's: twice as often for 101 held-out images as for 100."""
    generator = np.random.default_rng(number)
    found = [copying(generator.gamma(4, size=400), generator.gamma(4, size=number)).copied.value for _ in range(1_000)]
    assert np.mean(found) == pytest.approx(0.01 * number / (number + 1), abs=4 * np.std(found) / 1_000**0.5)
    assert 4 * np.std(found) / 1_000**0.5 < 0.002


def test_a_whole_number_of_images_is_its_quantile() -> None:
    """Breaks if stored shares, of 1,000 held-out images, were computed otherwise than before: to the bit."""
    generator = np.random.default_rng(0)
    samples, held_out = generator.integers(0, 400, 900) / 4, generator.integers(0, 400, 1_000) / 4
    threshold = np.quantile(held_out, 0.01, method="inverted_cdf")
    expected = (samples < threshold).mean() + (samples == threshold).mean() / 2
    assert copying(samples, held_out).copied.value == expected


def test_shares_of_too_little_get_a_sentence() -> None:
    """Breaks if a quantile is taken of a few images, or of NaN."""
    with pytest.raises(UserError, match="needs 100 samples and as many held-out images, and got 200 and 99"):
        copying(np.ones(200), np.ones(99))
    with pytest.raises(UserError, match="not finite"):
        copying(np.full(200, np.nan), np.ones(200))


# ---- images and features


def test_features_are_kept_and_an_interruption_loses_a_batch_alone(small_network, extractor, tmp_path: Path) -> None:
    """Breaks if features are computed twice, or those after an interruption are of other images."""
    reference, device = ReferenceSet(dataset(0, 45), tmp_path), torch.device("cpu")
    whole = np.array(kept_features(reference, extractor, device))
    np.testing.assert_array_equal(whole, features(reference.images, extractor, device))
    (path,) = tmp_path.glob("features-mine-train-45-768-*.npy")
    path.unlink()
    small_network.passed, small_network.fails_after = 0, 21
    with pytest.raises(KeyboardInterrupt):
        kept_features(reference, extractor, device)
    small_network.passed, small_network.fails_after = 0, None
    np.testing.assert_array_equal(kept_features(reference, extractor, device), whole)
    assert small_network.passed == 24, "it began where it was interrupted"
    kept_features(reference, extractor, device)
    assert small_network.passed == 24, "a whole file is not computed again"
    path.write_bytes(path.read_bytes()[:-4])
    np.testing.assert_array_equal(kept_features(reference, extractor, device), whole)


def test_images_are_compared_in_both_spaces(small_network, extractor, tmp_path: Path) -> None:
    """Breaks if copies are not found in features, or the row would not say what was compared with what."""
    training, held_out = dataset(0, 300), dataset(1, 150, "others")
    compared = TrainingImages(ReferenceSet(training, tmp_path, 200), held_out, extractor, torch.device("cpu"))
    assert compared.describe("pixels") == (
        "mine/train, 300 images, sha256:000000000000; held out others/train, 150 images, sha256:000000000000"
    )
    assert compared.describe("768").startswith("mine/train, 200 images")
    copied = compared.reference.images[:120]
    for space in ("pixels", "768"):
        found = compared.copying(copied, space)
        assert found.nearer.value == 1
        assert found.copied.value == 1
        np.testing.assert_array_equal(compared.nearest(copied, space).distance, 0)
    fresh = compared.copying(images(5, 120), "768")
    assert abs(fresh.nearer.value - 0.5) < 4 * fresh.nearer.error
    assert compared.refusal("pixels", 99) is not None
    assert compared.refusal("768", 120) is None


def test_without_weights_there_are_pixels(tmp_path: Path) -> None:
    """Breaks if missing weights end in a traceback, or pixels are left out with the features."""
    compared = TrainingImages(ReferenceSet(dataset(0, 200), tmp_path), dataset(1, 100), None, torch.device("cpu"))
    assert compared.copying(images(3, 100), "pixels").nearer.value > 0.3
    refused = compared.refusal("768", 120)
    assert refused is not None
    assert "no Inception weights" in refused.reason
    with pytest.raises(UserError, match="compare in pixels"):
        compared.nearest(images(3, 100), "768")


def test_held_out_images_are_not_the_training_images(tmp_path: Path) -> None:
    """Breaks if training images pass for held-out ones: every model would then look honest."""
    reference, device = ReferenceSet(dataset(0, 200), tmp_path), torch.device("cpu")
    with pytest.raises(UserError, match="are the training images of mine"):
        TrainingImages(reference, dataset(0, 200, "again"), None, device)
    small = Dataset("small", "test", images(1, 100, 4), None, "1" * 64, "made here")
    with pytest.raises(UserError, match="3 x 4 x 4, and the training images 3 x 8 x 8"):
        TrainingImages(reference, small, None, device)
    with pytest.raises(UserError, match="99 held-out images and a share of copies needs 100"):
        TrainingImages(reference, dataset(1, 99), None, device)
