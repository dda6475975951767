"""Whether samples lie nearer to the training images than other real images do."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from jlebm.errors import UserError
from jlebm.evaluation.mann_whitney import Share, share_above

TAIL = 0.01  # quantile of the held-out distances below which a sample counts as a near copy
FEWEST = 100  # least number of samples and of held-out images: the quantile is then one image


class Copying(NamedTuple):
    """Two shares that say how near samples are to the training images, with their standard errors."""

    nearer: Share
    """Probability that a sample is nearer to its nearest training image than a held-out image is to its own."""
    copied: Share
    """Share of samples that are nearer than the 1 % quantile of the held-out images' distances."""


def copying(
    samples: Float64[np.ndarray, " samples"], held_out: Float64[np.ndarray, " images"], tail: float = TAIL
) -> Copying:
    """Return how much nearer samples are to their nearest training image than held-out images are.

    `nearer` is the three-sample Mann-Whitney statistic of Meehan, Chaudhuri and Dasgupta ("A Non-Parametric Test to
    Detect Data-Copying in Generative Models", AISTATS 2020) over the whole space as one cell: P(d(sample) < d(held-out
    image)), ties counting one half, where d is the distance to the nearest training image. It is 0.5 for fresh draws of
    the data's distribution, 1 for copies and 0 for samples far from all data, so that copies among bad samples do not
    show in it. They show in `copied`, which is `tail` for fresh draws: the lower tail counts, however far the other
    samples are.

    The error of `nearer` is DeLong's (`share_above`); that of `copied` adds the error of the share to that of the
    quantile under equality, sqrt(p (1 - p) / n + t (1 - t) / m). Both are conditional on the training images.

    Args:
        samples: distance of each sample to its nearest training image.
        held_out: distance of each held-out image to its own.
        tail: share of the held-out images below the quantile.

    Raises:
        UserError: there are fewer than `FEWEST` of either, or a distance is not finite.
    """
    if min(len(samples), len(held_out)) < FEWEST:
        raise UserError(
            f"a share of copies needs {FEWEST} samples and as many held-out images, and got {len(samples)} and "
            f"{len(held_out)}"
        )
    if not (np.isfinite(samples).all() and np.isfinite(held_out).all()):
        raise UserError("a share of copies cannot be taken of distances that are not finite")
    share = _below(samples, held_out, tail)
    error = (share * (1 - share) / len(samples) + tail * (1 - tail) / len(held_out)) ** 0.5
    return Copying(share_above(held_out, samples), Share(share, float(error)))


def _below(samples: Float64[np.ndarray, " samples"], held_out: Float64[np.ndarray, " images"], tail: float) -> float:
    """Return the share of samples below the quantile of the held-out distances, ties counting one half.

    A fresh draw is below the k-th of m distances with probability k / (m + 1). Where `tail` m is no whole number, the
    share is taken between those of the two nearest k: the quantile of 101 images would else be that of 2 %.
    """
    first, between = divmod(round(tail * len(held_out), 9), 1)
    thresholds = np.r_[-np.inf, np.sort(held_out)][int(first) : int(first) + 2]
    shares = [(samples < one).mean() + (samples == one).mean() / 2 for one in thresholds]
    return float((1 - between) * shares[0] + between * shares[-1])
