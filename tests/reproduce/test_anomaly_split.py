"""The two test sets of Table 4: who is trained on, who is tested, and what settings may be chosen on."""

import os
from pathlib import Path

import numpy as np
import pytest

from jlebm import data
from jlebm.errors import UserError
from reproduce.measuring.anomaly_split import OTHERS, PROTOCOLS, SEED, describe
from reproduce.results import anomaly_counts
from reproduce.results.anomaly_names import REPORTED

LABELS = np.random.default_rng(3).integers(0, 10, 1_000)


def numbered(labels: np.ndarray, first: int, split: str) -> data.Dataset:
    """Return images that carry their own number, so that each can be told from all others."""
    pixels = np.arange(first, first + len(labels), dtype="<u4").view(np.uint8).reshape(-1, 1, 2, 2)
    return data.Dataset("mnist", split, pixels, labels.astype(np.int64), split, split)


PARTS = numbered(LABELS[:860], 0, "train"), numbered(LABELS[860:], 860, "test")


def numbers(dataset: data.Dataset) -> list[int]:
    return np.ascontiguousarray(dataset.images).reshape(len(dataset.images), 4).view("<u4")[:, 0].tolist()


@pytest.mark.parametrize("digit", REPORTED)
def test_eighty_twenty(digit: int) -> None:
    """Breaks if an image is lost or in both parts, or one of the held-out digit is trained on or left out."""
    split = PROTOCOLS["80-20"].split(PARTS, digit, False)
    train, test = numbers(split.train), numbers(split.test)
    assert sorted(train + test) == list(range(1_000))
    normal = int((digit != LABELS).sum())
    assert len(train) == normal * 4 // 5
    assert not (LABELS[train] == digit).any()
    held_out = split.held_out
    assert held_out.sum() == (digit == LABELS).sum()
    assert np.array_equal(LABELS[test] == digit, held_out)
    again = PROTOCOLS["80-20"].split(PARTS, digit, False)
    assert (numbers(again.train), numbers(again.test)) == (train, test)
    assert (again.train.digest, again.test.digest) == (split.train.digest, split.test.digest)
    order = np.random.RandomState(SEED).permutation(1_000)
    assert train == [index for index in order if LABELS[index] != digit][: len(train)]


def test_settings_are_chosen_on_what_trains_for_every_digit() -> None:
    """Breaks if a normal test image of any digit of Table 4 were seen while settings are chosen."""
    protocol = PROTOCOLS["80-20"]
    final = {digit: protocol.split(PARTS, digit, False) for digit in REPORTED}
    seen: set[int] = set()
    for digit in protocol.digits(True):
        split = protocol.split(PARTS, digit, True)
        train, test = set(numbers(split.train)), set(numbers(split.test))
        assert not train & test
        assert not (LABELS[sorted(train)] == digit).any()
        # A digit of Table 4 is never an anomaly here: it occurs among the normal images alone.
        assert set(LABELS[np.array(numbers(split.test))[split.held_out]]) == {digit}
        seen |= train | test
    for digit, split in final.items():
        normal_tests = np.array(numbers(split.test))[~split.held_out]
        assert not seen & set(normal_tests.tolist())
        assert all(LABELS[index] == digit or index in set(numbers(split.train)) for index in seen)


@pytest.mark.parametrize("digit", REPORTED)
def test_no_setting_is_chosen_on_a_digit_of_table_4(digit: int) -> None:
    """Its images are test images, every one."""
    with pytest.raises(UserError, match=f"all images of {digit} are test images"):
        PROTOCOLS["80-20"].split(PARTS, digit, True)


def test_the_official_split_is_what_it_was() -> None:
    """Breaks if the older rows' test set moved."""
    split = PROTOCOLS["official"].split(PARTS, 4, False)
    assert numbers(split.test) == list(range(860, 1_000))
    assert numbers(split.train) == [index for index in range(860) if LABELS[index] != 4]
    judged = PROTOCOLS["official"].split(PARTS, 4, True)
    assert numbers(judged.test) == list(range(0, 860, 6))
    assert not set(numbers(judged.train)) & set(numbers(judged.test))


def test_a_row_says_what_no_detector_reaches() -> None:
    """Breaks if an AUPRC of the 80/20 test set could be read without its chance and the least that is possible."""
    split = PROTOCOLS["80-20"].split(PARTS, 4, False)
    positives = int((LABELS == 4).sum())
    negatives = len(split.test.images) - positives
    said = describe(split, np.arange(len(split.test.images)))
    assert said.startswith(f"positive: digit 4, held out, {positives} images of mnist/80/20")
    assert f"{negatives}; chance {positives / (positives + negatives):.3f}, least possible AUPRC 0." in said


COUNTS = {1: (12425, 7877), 4: (12636, 6824), 5: (12738, 6313), 7: (12542, 7293), 9: (12609, 6958)}


def test_the_counts_of_tables() -> None:
    """Breaks if a table's chance and least possible AUPRC are of another test set than the rows beside them."""
    assert {digit: anomaly_counts.images_of_test(digit)[::-1] for digit in REPORTED} == COUNTS


def test_the_counts_of_mnist() -> None:
    """Breaks if the split were not the published one: its numbers of normal and of anomalous test images are known."""
    root = Path(os.environ.get("JLEBM_DATA", "/nonexistent"))
    try:
        parts = data.held_out("mnist", root, download=False)
    except UserError:
        pytest.skip("MNIST is not in JLEBM_DATA")
    for digit, pair in COUNTS.items():
        held_out = PROTOCOLS["80-20"].split(parts, digit, False).held_out
        assert (int((~held_out).sum()), int(held_out.sum())) == pair


def test_the_digits_of_both() -> None:
    """Breaks if settings were chosen on the digits that the table reports."""
    assert not set(REPORTED) & set(OTHERS)
    assert PROTOCOLS["80-20"].digits(True) == OTHERS
    assert PROTOCOLS["80-20"].digits(False) == PROTOCOLS["official"].digits(False) == REPORTED
