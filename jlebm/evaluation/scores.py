"""Is an image one of the others? From a score an image to how well the score tells two sets apart.

The scores are a model's: L^{>k} of Eq. 20 and what is made of it (`jlebm.hierarchy.scores_above`).
Which set is called positive decides the AUPRC, its value at chance too, and is a part of every record.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jlebm.errors import UserError

LEAST_TPR = 0.8  # at which the false positive rate is taken


@dataclass(frozen=True)
class Detection:
    """How well one score tells the positive images from the negative ones."""

    positive: str
    """Which images are the positive ones, "svhn" or "digit 9": those that a high score is meant to find."""
    auroc: float
    """The probability that a positive image has the higher score; of ties one half. 0.5 is chance."""
    auprc: float
    """Average precision: precision at every threshold, weighed by the recall that it adds, without interpolation.
    Chance is the share of positive images."""
    fpr80: float
    """The smallest false positive rate of a threshold that finds 80 % of the positive images or more."""
    positives: int
    negatives: int


def detection(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"], name: str
) -> Detection:
    """Judge a score that is meant to be higher for positive images.

    Args:
        positive: scores of the positive images.
        negative: scores of the others.
        name: of the positive images.

    Raises:
        UserError: there are no images of one kind, or a score is not finite.
    """
    if not len(positive) or not len(negative):
        raise UserError(f"detecting {name} needs scores of both kinds, not {len(positive)} and {len(negative)}")
    scores = np.concatenate([positive, negative]).astype(np.float64)
    if not np.isfinite(scores).all():
        raise UserError(f"a score for detecting {name} is not finite; look at the model and the chain that made it")
    labels = np.repeat((1, 0), (len(positive), len(negative)))
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return Detection(
        name,
        auroc=float(roc_auc_score(labels, scores)),
        auprc=float(average_precision_score(labels, scores)),
        fpr80=float(false[true >= LEAST_TPR][0]),
        positives=len(positive),
        negatives=len(negative),
    )


def likelihood_ratio(
    whole: Float[np.ndarray, " images"], above: Float[np.ndarray, " images"]
) -> Float[np.ndarray, " images"]:
    """Return L^{>0} - L^{>k} of each image: what its lower layers add to the upper ones' account of it.

    After Havtorn et al., "Hierarchical VAEs Know What They Don't Know" (ICML 2021), which the paper's is taken to be.
    It is high where the lower layers account for an image that the upper ones miss: out of distribution.

    Args:
        whole: L^{>0} of each image, in nats.
        above: L^{>k} of the same images.
    """
    return whole - above
