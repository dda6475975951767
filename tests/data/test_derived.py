"""Datasets made of another one's images: what is in them, what is not, and what they are called."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from jlebm.data import every, held_out, load, without
from jlebm.data.loading import Dataset
from jlebm.errors import UserError

DIGITS = load("digits")


def labels_of(dataset: Dataset) -> np.ndarray:
    assert dataset.labels is not None
    return dataset.labels


@pytest.mark.parametrize("digit", [0, 9])
def test_a_class_that_is_left_out_is_not_there(digit: int) -> None:
    """Breaks if an image of the class stays, another is lost, or images and labels part."""
    left = without(DIGITS, digit)
    kept = [index for index, label in enumerate(labels_of(DIGITS)) if label != digit]
    assert digit not in labels_of(left)
    assert np.array_equal(left.images, DIGITS.images[kept])
    assert np.array_equal(labels_of(left), labels_of(DIGITS)[kept])
    assert not left.images.flags.writeable


def test_what_is_derived_has_a_name_and_a_digest_of_its_own() -> None:
    """Breaks if runs without two digits would share a folder, or the digest is not that of the pixels."""
    derived = [without(DIGITS, digit) for digit in range(10)] + [every(DIGITS, 5), every(DIGITS, 5, inverted=True)]
    assert len({one.digest for one in [DIGITS, *derived]}) == 13
    assert derived[7].name == "digits-without-7"
    pixels = np.ascontiguousarray(derived[7].images.transpose(0, 2, 3, 1))
    assert derived[7].digest == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert derived[7].origin == "embedded, without class 7"


@pytest.mark.parametrize("part", [2, 5])
def test_a_part_and_the_others_are_the_whole(part: int) -> None:
    """Breaks if an image is in both or in neither: what is held out would be trained on."""
    taken, rest = every(DIGITS, part), every(DIGITS, part, inverted=True)
    whole = np.empty_like(DIGITS.images)
    whole[::part] = taken.images
    whole[np.arange(len(whole)) % part != 0] = rest.images
    assert len(taken.images) + len(rest.images) == len(whole)
    assert np.array_equal(whole, DIGITS.images)


def test_without_a_test_split_each_fifth_image_is_held_out() -> None:
    """Breaks if a model is judged on what it was trained on."""
    train, held = held_out("digits")
    assert (train.split, len(train.images), held.split, len(held.images)) == ("train", 1437, "test", 360)
    assert np.array_equal(held.images, DIGITS.images[::5])
    assert np.array_equal(train.images[:4], DIGITS.images[1:5])


@pytest.mark.parametrize("label", [10, -1])
def test_a_class_that_is_none_is_refused(label: int) -> None:
    """Breaks if a mistyped digit trains on everything under a name that says otherwise."""
    with pytest.raises(UserError, match=rf"digits has no class {label} .* its classes are 0, 1, 2"):
        without(DIGITS, label)


def test_without_labels_nothing_can_be_left_out() -> None:
    """Breaks if images without labels leave as a traceback."""
    with pytest.raises(UserError, match=r"digits \(train\) has no labels"):
        without(replace(DIGITS, labels=None), 1)
