"""Which images a held-out digit is detected among: the two test sets that the paper's Table 4 mixes, by name.

BiGAN's, MEG's and DAMC's code pool all 70,000 images of MNIST, train on 80 % of those of the other digits and test on
the other 20 % and on all images of the held-out digit, which is then a third or more of the test set. Rows with an
AUPRC below the least that is possible there, such as Table 4's VAE, are of a test set like the official one, of which a
digit is about a tenth (docs/facts, "Two test sets in Table 4").
"""

import abc
from dataclasses import dataclass, replace

import numpy as np

from jlebm import data
from jlebm.errors import UserError
from reproduce.results.anomaly_counts import least_auprc
from reproduce.results.anomaly_names import EIGHTY_TWENTY, OFFICIAL, REPORTED, TYPED

OTHERS = (0, 2, 3, 6, 8)  # settings are chosen on these, if every image of a reported digit is a test image
SEED = 42  # seed of the shuffle, as in the public code
PART = 6  # in development, every sixth training image is judged instead of the test images


@dataclass(frozen=True)
class Split:
    """Training images of the other digits, and the images in which the held-out one is to be found."""

    train: data.Dataset
    test: data.Dataset
    digit: int

    @property
    def held_out(self) -> np.ndarray:
        """Which test images are of the held-out digit, as booleans."""
        assert self.test.labels is not None  # the split was made from them
        return self.test.labels == self.digit


class Protocol(abc.ABC):
    """A test set by name."""

    id: str
    name: str
    """As it is typed."""

    @abc.abstractmethod
    def split(self, parts: tuple[data.Dataset, data.Dataset], digit: int, development: bool) -> Split:
        """Return the images of one held-out digit.

        Args:
            parts: the dataset's official training and test images, with labels.
            digit: held out.
            development: whether to leave the test images alone and judge a part of the training images.

        Raises:
            UserError: there is no such digit, or choosing settings on it would be choosing them on test images.
        """

    @abc.abstractmethod
    def digits(self, development: bool) -> tuple[int, ...]:
        """Return the digits that are held out where none are named."""


class Official(Protocol):
    """The official 10,000 test images, of which a digit is about a tenth."""

    id, name = OFFICIAL, TYPED[OFFICIAL]

    def split(self, parts: tuple[data.Dataset, data.Dataset], digit: int, development: bool) -> Split:
        """See `Protocol`; in development each sixth training image is held out and judged."""
        train, test = parts
        if development:
            train, test = data.every(train, PART, inverted=True), data.every(train, PART)
        return Split(data.without(train, digit), test, digit)

    def digits(self, development: bool) -> tuple[int, ...]:
        """See `Protocol`."""
        return REPORTED


class EightyTwenty(Protocol):
    """The whole dataset shuffled: 80 % of the other digits to learn from, 20 % and the held-out digit to test.

    One shuffle serves all digits, so that the first images of it are training images whichever other digit is held out:
    they are what settings are chosen on. Half of them are of a digit of Table 4 and test images of that digit alone;
    there they are anomalies, and here always normal.
    """

    id, name = EIGHTY_TWENTY, TYPED[EIGHTY_TWENTY]

    def split(self, parts: tuple[data.Dataset, data.Dataset], digit: int, development: bool) -> Split:
        """See `Protocol`; in development the same split of the images that test no digit of Table 4 but their own."""
        pool = data.pooled(parts)
        data.without(pool, digit)  # says which digits there are
        assert pool.labels is not None
        order = np.random.RandomState(SEED).permutation(len(pool.images))
        words = "80/20"
        if development:
            if digit in REPORTED:
                raise UserError(
                    f"all images of {digit} are test images of {self.id}; choose settings on the digits "
                    f"{', '.join(map(str, OTHERS))}"
                )
            order = order[: self._common(pool.labels[order])]
            words = "80/20 of what tests no digit of Table 4 but its own"
        normal, anomalous = order[pool.labels[order] != digit], order[pool.labels[order] == digit]
        cut = len(normal) * 4 // 5
        train = data.chosen(pool, normal[:cut], f"{pool.name}-80-20-without-{digit}", f"{words}, without {digit}")
        test = data.chosen(pool, np.concatenate([normal[cut:], anomalous]), pool.name, f"{words}, test of {digit}")
        return Split(replace(train, split="train"), replace(test, split="80/20"), digit)

    def digits(self, development: bool) -> tuple[int, ...]:
        """See `Protocol`."""
        return OTHERS if development else REPORTED

    def _common(self, labels: np.ndarray) -> int:
        """Return how many of the shuffled images come before the first normal test image of any of Table 4's digits."""
        firsts = []
        for digit in REPORTED:
            normal = np.flatnonzero(labels != digit)
            firsts.append(normal[len(normal) * 4 // 5])
        return int(min(firsts))


PROTOCOLS: dict[str, Protocol] = {one.name: one for one in (Official(), EightyTwenty())}


def describe(split: Split, chosen: np.ndarray) -> str:
    """Say what is positive, how many images there are of each kind, and what no detector and the worst one reach.

    Args:
        split: of one digit.
        chosen: indices of the test images that are judged.
    """
    held_out = split.held_out[chosen]
    positives, negatives = int(held_out.sum()), int((~held_out).sum())
    where = f"{split.test.name}/{split.test.split}"
    words = f"positive: digit {split.digit}, held out, {positives} images of {where}; negative: the other digits, "
    if split.test.split != "80/20":
        return f"{words}{negatives}"
    share, least = positives / (positives + negatives), least_auprc(positives, negatives)
    return f"{words}{negatives}; chance {share:.3f}, least possible AUPRC {least:.3f}"
