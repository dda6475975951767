"""How often a value of one sample lies above one of another, with its standard error."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jlebm.errors import UserError


class Share(NamedTuple):
    """A share of pairs, and its standard error."""

    value: float
    error: float


def share_above(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> Share:
    """Return the share of pairs in which the value of `first` is above that of `second`, ties counting one half.

    This is the Mann-Whitney statistic over n m, and the area under the ROC curve of a score whose positives are
    `first`. The standard error is that of DeLong, DeLong and Clarke-Pearson ("Comparing the areas under two or more
    correlated receiver operating characteristic curves", Biometrics 44, 1988): the variances of each value's own share
    over its sample, S10 / n + S01 / m. It assumes nothing of the distributions, and is 0 for samples that do not
    overlap.

    Args:
        first: values, at least two.
        second: values to compare with, at least two.

    Raises:
        UserError: a sample has fewer than two values, or a value is not a number.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(f"a share of pairs needs two values on each side and got {len(first)} and {len(second)}")
    if np.isnan(first).any() or np.isnan(second).any():
        raise UserError("a share of pairs cannot be taken of values that are not numbers")
    above, below = _placed(first, second), 1 - _placed(second, first)
    variance = above.var(ddof=1) / len(first) + below.var(ddof=1) / len(second)
    return Share(float(above.mean()), float(np.sqrt(variance)))


def _placed(values: Float[np.ndarray, " n"], among: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Return the share of `among` that lies below each value, ties counting one half."""
    ordered = np.sort(among)
    sides = [np.searchsorted(ordered, values, side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(among))
