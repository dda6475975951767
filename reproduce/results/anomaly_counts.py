"""Number of images of each digit in the 80/20 test set of Table 4, from the counts of MNIST's digits."""

from jlebm.evaluation.prevalence import least_auprc

DIGITS = (6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)  # of 0 to 9, in both splits of MNIST together


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
