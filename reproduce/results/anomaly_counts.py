"""Number of images of each digit in the 80/20 test set of Table 4, from the counts of MNIST's digits."""

import numpy as np

from jlebm.errors import UserError

DIGITS = (
    6903,
    7877,
    6990,
    7141,
    6824,
    6313,
    6876,
    7293,
    6825,
    6958,
)  # images of 0 to 9, in both splits of MNIST together


def least_auprc(positives: int, negatives: int) -> float:
    """Return the least average precision that a ranking can have: every positive image comes last.

    Args:
        positives: number of positive images, at least one.
        negatives: number of the others.

    Raises:
        UserError: there is no positive image.
    """
    if positives < 1 or negatives < 0:
        raise UserError(f"the AUPRC needs a positive image; there are {positives}, and {negatives} others")
    found = np.arange(1, positives + 1)
    return float((found / (negatives + found)).mean())


def images_of_test(digit: int) -> tuple[int, int]:
    """Return the numbers of test images of the held-out digit and of the others.

    All images of the digit are tested, and the fifth of the others that is not used in training.
    """
    others = sum(DIGITS) - DIGITS[digit]
    return DIGITS[digit], others - others * 4 // 5


def chance(digit: int) -> float:
    """Return the AUPRC of a score without information: the share of the held-out digit."""
    positives, negatives = images_of_test(digit)
    return positives / (positives + negatives)


def least_possible(digit: int) -> float:
    """Return the AUPRC of the worst ranking, which puts every image of the held-out digit last."""
    return least_auprc(*images_of_test(digit))
