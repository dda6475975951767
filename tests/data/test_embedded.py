import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

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


def test_photos_are_balanced_and_vary() -> None:
    """Breaks if one photograph is preferred, crops repeat, or their colours are those of one place only."""
    dataset = load("photos")
    assert dataset.labels is not None
    assert dataset.images.shape == (5000, 3, 32, 32)
    np.testing.assert_array_equal(np.bincount(dataset.labels), [2500, 2500])
    assert len(np.unique(dataset.images.reshape(5000, -1), axis=0)) > 4990
    assert dataset.images.mean(axis=(1, 2, 3)).std() > 20


def test_photos_are_the_same_in_every_process() -> None:
    """Breaks if the crops depend on a global seed or on the process."""
    np.random.seed(1)  # noqa: NPY002  (the global state, on purpose)
    command = "from jlebm.data import load; print(load('photos').digest)"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == load("photos").digest


@pytest.mark.parametrize("name", ["digits", "photos"])
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
