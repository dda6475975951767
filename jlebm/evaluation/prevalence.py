"""How the AUPRC depends on the share of positive images, which differs between test sets that papers compare."""

import numpy as np
from jaxtyping import Float

from jlebm.errors import UserError

GRID = 4_001  # thresholds of the numerical integral
WIDEST = 12.0  # standard deviations between the two classes, beyond which the AUPRC is 0 or 1 to rounding


def auprc_at_share(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"], share: float
) -> float:
    """Return the average precision that scores would have if positive images were this share of the test set.

    Each image keeps its score, and the negative ones are weighted.

    Args:
        positive: scores of the positive images, meant to be the higher ones.
        negative: scores of the others.
        share: of positive images, between 0 and 1.

    Raises:
        UserError: the share does not lie between 0 and 1, or one set is empty.
    """
    _check(share)
    if not len(positive) or not len(negative):
        raise UserError("the AUPRC needs scores of both kinds")
    from sklearn.metrics import average_precision_score  # here: it takes a second to import

    labels = np.repeat((1, 0), (len(positive), len(negative)))
    weights = np.repeat((share / len(positive), (1 - share) / len(negative)), (len(positive), len(negative)))
    return float(average_precision_score(labels, np.concatenate([positive, negative]), sample_weight=weights))


def converted_auprc(auprc: float, share: float, other: float) -> float:
    """Estimate a reported AUPRC at another share of positive images; for readers, never a measurement.

    Both classes' scores are taken to be normal with one variance, which the AUPRC at its own share determines.

    Args:
        auprc: at `share`.
        share: of positive images in the test set that it was measured on, between 0 and 1.
        other: share to convert to.

    Raises:
        UserError: a share or the AUPRC does not lie between 0 and 1, or no two normal distributions have this AUPRC.
    """
    _check(share)
    _check(other)
    from scipy.optimize import root_scalar  # here: it takes a second to import

    lowest, highest = _binormal(-WIDEST, share), _binormal(WIDEST, share)
    if not lowest < auprc < highest:
        raise UserError(
            f"an AUPRC of {auprc:g} is impossible where {share:g} of the images are positive: {lowest:.3f} is the least"
        )
    found = root_scalar(lambda value: _binormal(value, share) - auprc, bracket=(-WIDEST, WIDEST), method="brentq")
    return _binormal(float(found.root), other)


def _binormal(distance: float, share: float) -> float:
    """Return the AUPRC of N(distance, 1) against N(0, 1): precision over recall, by the trapezoid rule."""
    from scipy.stats import norm

    thresholds = distance + np.linspace(-8, 8, GRID)[::-1]
    found, false = norm.sf(thresholds - distance), norm.sf(thresholds)
    precision = share * found / (share * found + (1 - share) * false)
    return float(np.trapezoid(precision, found))


def _check(share: float) -> None:
    if not 0 < share < 1:
        raise UserError(f"the share of positive images must lie between 0 and 1, not be {share:g}")
