"""Detection: how well a score per image tells two sets of images apart.

The scores come from a model: L^{>k} of Eq. 20 and differences of it (`jlebm.hierarchy.scores_above`).
The choice of the positive set changes the AUPRC, even at chance, and is a part of every record.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jlebm.errors import UserError

LEAST_TPR = 0.8  # true positive rate at which the false positive rate is read


@dataclass(frozen=True)
class Detection:
    """Detection metrics of one score: AUROC, AUPRC and false positive rate."""

    positive: str
    """Name of the positive images, which a high score should find: "svhn" or "digit 9"."""
    auroc: float
    """Probability that a positive image has the higher score, ties counting one half; 0.5 is chance."""
    auprc: float
    """Average precision: precision at every threshold, weighted by the recall that it adds, without interpolation.
    Chance is the share of positive images."""
    fpr80: float
    """Smallest false positive rate of a threshold that finds at least 80 % of the positive images."""
    positives: int
    negatives: int


def detection(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"], name: str
) -> Detection:
    """Compute the detection metrics of a score that should be higher for positive images.

    Args:
        positive: scores of the positive images.
        negative: scores of the others.
        name: name of the positive images.

    Raises:
        UserError: one set is empty, or a score is not finite.
    """
    if not len(positive) or not len(negative):
        raise UserError(f"detecting {name} needs scores of both kinds, not {len(positive)} and {len(negative)}")
    scores = np.concatenate([positive, negative]).astype(np.float64)
    if not np.isfinite(scores).all():
        raise UserError(f"a score for detecting {name} is not finite; look at the model and the chain that made it")
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve  # here: it takes a second to import

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
    """Return the likelihood-ratio score L^{>0} - L^{>k} of each image.

    From Havtorn et al., "Hierarchical VAEs Know What They Don't Know" (ICML 2021), assumed to be the paper's score. It
    is high if the lower layers explain an image that the upper layers do not: out of distribution.

    Args:
        whole: L^{>0} of each image, in nats.
        above: L^{>k} of the same images.
    """
    return whole - above
