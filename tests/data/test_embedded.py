import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

from jlebm.data import load
from jlebm.errors import UserError


def test_digits_keep_their_sixteen_levels() -> None:
    """Breaks if scaling to 0..255 merges levels, clips, or reorders the images."""
    dataset = load("digits")
    bunch = load_digits()
    assert dataset.images.shape == (1797, 1, 8, 8)
    assert (dataset.images.min(), dataset.images.max()) == (0, 255)
    np.testing.assert_array_equal(np.rint(dataset.images[:, 0] * (16 / 255)), bunch.images)
    np.testing.assert_array_equal(dataset.labels, bunch.target)


def test_digits_at_the_size_of_mnist() -> None:
    """Breaks if an enlarged digit is cut, shifted or another one: reduced again it is the small digit, but for blur."""
    train, test = load("digits28"), load("digits28", split="test")
    small = load("digits")
    assert (len(train.images), len(test.images)) == (1500, 297)
    assert train.digest != test.digest
    images = np.concatenate([train.images, test.images])[:, 0].astype(float)
    assert train.labels is not None
    assert test.labels is not None
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), small.labels)
    frame = np.ones((28, 28), bool)
    frame[4:-4, 4:-4] = False
    assert not images[:, frame].any(), "as in MNIST, four pixels around are black"
    weights = np.repeat(np.eye(8), 5, axis=0).reshape(20, 2, 8).mean(1) / 2.5  # each of 8 is the mean of 2.5 of 20
    reduced = weights.T @ images[:, 4:-4, 4:-4] @ weights
    for one, whole in zip(reduced, small.images[:, 0], strict=True):
        assert np.corrcoef(one.ravel(), whole.ravel())[0, 1] > 0.97


SIZES = [("photos", 5000, 32), ("photos64", 1000, 64), ("photos256", 64, 256)]


@pytest.mark.parametrize(("name", "count", "side"), SIZES)
def test_photos_are_balanced_and_vary(name: str, count: int, side: int) -> None:
    """Breaks if one photograph is preferred, crops repeat, or their colours are those of one place only."""
    dataset = load(name)
    assert dataset.labels is not None
    assert dataset.images.shape == (count, 3, side, side)
    np.testing.assert_array_equal(np.bincount(dataset.labels), [count // 2, count // 2])
    assert len(np.unique(dataset.images.reshape(count, -1), axis=0)) > 0.998 * count - 1
    assert dataset.images.mean(axis=(1, 2, 3)).std() > 10


def test_the_photos_of_before_are_the_photos_of_today() -> None:
    """Breaks if rows that were stored under the name `photos` are of other pixels than today's."""
    assert load("photos").digest == "67de89353a671f3667594bd6d695bd39c92357dbbe5fa0c2b5323acac7e5ee19"


@pytest.mark.parametrize(("name", "side"), [("photos64", 64), ("photos256", 256)])
def test_larger_crops_are_sharp(name: str, side: int) -> None:
    """Breaks if small crops are blown up to the size: a crop of just its size has the photograph's own pixels."""
    images = load(name).images
    whole = [photograph.transpose(2, 0, 1) for photograph in load_sample_images().images]
    draws = np.random.PCG64(20230606).random_raw(3 * len(images)).reshape(-1, 3)
    sides = side + draws[:, 0] % ((256 if side == 64 else 427) - side + 1)
    smallest = int(sides.argmin())
    photograph, crop = whole[smallest % 2], int(sides[smallest])
    left = int(draws[smallest, 1] % (photograph.shape[2] - crop + 1))
    top = int(draws[smallest, 2] % (photograph.shape[1] - crop + 1))
    cut = photograph[:, top : top + crop, left : left + crop]
    assert abs(cut.mean() - images[smallest].mean()) < 0.5
    steps = [np.abs(np.diff(part.astype(float), axis=2)).mean() for part in (cut, images[smallest])]
    assert steps[1] > 0.8 * steps[0]


@pytest.mark.slow
def test_photos_are_the_same_in_every_process() -> None:
    """Breaks if the crops depend on a global seed or on the process."""
    np.random.seed(1)  # noqa: NPY002  (the global state, on purpose)
    command = "from jlebm.data import load; print(load('photos').digest)"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == load("photos").digest


@pytest.mark.parametrize("name", ["digits", "digits28", "photos", "photos64", "photos256"])
def test_embedded_datasets_are_read_only_and_say_what_they_are(name: str) -> None:
    """Breaks if a caller can change a dataset for those after it, or a row cannot name its origin."""
    dataset = load(name)
    assert dataset.origin == "embedded"
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0] = 0


def test_embedded_datasets_have_no_test_split() -> None:
    """Breaks if training images pass for a test split."""
    with pytest.raises(UserError, match="photos has no split 'test'; it has: train"):
        load("photos", split="test")
